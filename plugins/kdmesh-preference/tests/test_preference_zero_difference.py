"""A run and a plain loop end with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kdmesh
import pytest
import torch
from kdmesh.engine.check import examine
from plain_pairs import Plain, divergence, dpo, squared
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

EPOCHS, SIZE, SEED, SIGNS = 2, 6, 7, "0123456789+="


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each sign."""
    made = Tokenizer(
        models.WordLevel({token: at for at, token in enumerate(["<pad>", "<s>", "</s>", *SIGNS])}, "<pad>")
    )
    made.pre_tokenizer, made.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


class Both:
    """A mesh over two saved models, and the same models and pairs for a plain loop."""

    def __init__(self, folder: Path) -> None:
        self.folder, words = folder, tokenizer()
        pairs = [(a, b) for a in range(5) for b in range(5)]
        lines = [
            {"q": f"{a}+{b}" + "=" * (a % 3), "a": str(a + b), "n": str((a + b) * (2 + 9 * (b % 2)) + 1)}
            for a, b in pairs
        ]
        (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        for number, name in enumerate("sr"):
            torch.manual_seed(number)
            config = LlamaConfig(
                vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                num_key_value_heads=1, intermediate_size=24, max_position_embeddings=64, initializer_range=0.6,
                pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
            )  # fmt: skip
            LlamaForCausalLM(config).save_pretrained(folder / name)
            words.save_pretrained(folder / name)

        def answer(question: str, text: str) -> tuple[list[int], int]:
            asked = [1, *words(question)["input_ids"]]
            return [*asked, *words(text)["input_ids"], 2], len(asked)

        self.pairs = [(answer(line["q"], line["a"]), answer(line["q"], line["n"])) for line in lines]

    def mesh(self, objective: Any, placement: str = "together", refresh: str = "step", **more: Any) -> kdmesh.Mesh:
        """The run's side."""
        model = {name: {"hf": {"path": str(self.folder / name), "max_length": 40}} for name in "sr"}
        data = {"path": str(self.folder / "sums.jsonl"), "text": "a", "prompt": "q", "rejected": "n"}
        return kdmesh.Mesh(
            task="language_modelling",
            data={"dataset": {"text": data}},
            text={"bucket": False},
            placement=placement,
            seed=SEED,
            agents={"r": {"model": model["r"], "update": "frozen"}, "s": {"model": model["s"]}},
            streams={"pairs": {"of": "train", "pairs": True}},
            flows=[{"from": "r", "to": "s", "stream": "pairs", "objective": objective, "refresh": refresh}],
            train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}, **more},
        )

    def loop(self, rows: list[int], **more: Any) -> Plain:
        """The plain side, trained."""
        nets = [LlamaForCausalLM.from_pretrained(self.folder / name) for name in "sr"]
        pairs = {row: self.pairs[row] for row in rows}
        plain = Plain(nets[0].train(), nets[1].eval(), pairs, 0, SEED, SIZE, **more)
        plain.train(EPOCHS, lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True))
        return plain


CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "dpo": ({"dpo": {"beta": 0.3}}, {}, {"loss": dpo(0.3)}),
    "dpo, published once": ({"dpo": {"beta": 0.3}}, {"refresh": "once"}, {"loss": dpo(0.3)}),
    "dpo, smoothed, per token": (
        {"dpo": {"beta": 2, "label_smoothing": 0.1, "per_token": True}},
        {},
        {"loss": dpo(2, 0.1), "per_token": True},
    ),
    "dpo, two batches an update": ({"dpo": {"beta": 0.3}}, {"accumulate": 2}, {"loss": dpo(0.3), "accumulate": 2}),
    "distilled": ({"dpo_distilled": {"beta": 0.3}}, {}, {"loss": divergence(0.3)}),
    "distilled, squared": ({"dpo_distilled": {"distance": "squared"}}, {}, {"loss": squared(0.1)}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_and_a_plain_loop_end_with_the_same_weights(case: str, tmp_path: Path) -> None:
    objective, how, plain = CASES[case]
    both = Both(tmp_path)
    mesh = both.mesh(objective, **how)
    loop = both.loop(examine(mesh.plan()).streams["pairs"].rows.tolist(), **plain)
    result = mesh.run(backend="inline")
    start = LlamaForCausalLM.from_pretrained(tmp_path / "s").state_dict()
    for name, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, loop.student.state_dict()[name]), name
        assert not torch.equal(value, start[name]), name
