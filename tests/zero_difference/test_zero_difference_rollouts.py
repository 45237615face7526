"""On-policy distillation: a run and a loop of plain transformers write the same texts and end with the same weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_rollouts import Plain
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import kdmesh
from kdmesh.engine.check import examine

EPOCHS, SIZE, SEED, NEW = 2, 6, 7, 5
SIGNS = "0123456789+="


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The mesh's agents compute with one thread, so the plain loops do too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tokenizer(special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """A token for each sign; which of BOS and EOS there are."""
    known = ["<pad>", *special, *SIGNS]
    made = Tokenizer(models.WordLevel({token: number for number, token in enumerate(known)}, "<pad>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", **{key: name for key, name in names.items() if name in special}
    )


class Both:
    """A mesh over saved models, and the same models and prompts for a plain loop."""

    def __init__(self, folder: Path, teachers: str, special: tuple[str, ...], **plain: Any) -> None:
        words, self.teachers = tokenizer(special), teachers
        lines = [{"q": f"{a}+{b}" + "=" * (a % 3), "a": str(a + b)} for a in range(5) for b in range(5)]
        (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        for number, name in enumerate("s" + teachers):
            torch.manual_seed(number)
            config = LlamaConfig(
                vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                num_key_value_heads=1, intermediate_size=24, max_position_embeddings=64, initializer_range=0.6,
                pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
                tie_word_embeddings=False,
            )  # fmt: skip
            LlamaForCausalLM(config).save_pretrained(folder / name)
            words.save_pretrained(folder / name)
        begin = words.bos_token_id if words.bos_token_id is not None else words.eos_token_id
        first, last = [begin] * (begin is not None), [words.eos_token_id] * (words.eos_token_id is not None)
        ids = [[words(line[part])["input_ids"] for part in "qa"] for line in lines]
        self.told = [first + words(f"{line['a']}={line['q']}")["input_ids"] for line in lines]
        self.folder, self.plain = folder, plain
        self.questions, self.first, self.words = [line["q"] for line in lines], first, words
        self.prompts = [first + q for q, _ in ids]
        self.given = [(first + q + a + last, len(first + q)) for q, a in ids]
        self.eos, self.pad = words.eos_token_id, words.pad_token_id

    def mesh(self, stream: dict[str, Any] | None, **more: Any) -> kdmesh.Mesh:
        """The run's side."""
        view = {"view": {"prompt": "{{ text }}={{ prompt }}"}}
        hinted = {"h": {"weights_of": "s", **view}} if "hinted" in self.plain else {}
        again: dict[str, Any] = {}
        if stream is not None and "revised" in self.plain:
            again["first"] = {"generated_by": "s", "prompts": "train", **stream}
            stream = {**stream, "reads": {"a": "first"}, "template": "{{ a.text }}={{ prompt }}"}
        model = {name: {"hf": {"path": str(self.folder / name), "max_length": 40}} for name in "s" + self.teachers}
        told = view if "told" in self.plain else {}
        agents: dict[str, Any] = {name: {"model": model[name], "update": "frozen", **told} for name in self.teachers}
        return kdmesh.Mesh(
            task="language_modelling",
            data={"dataset": {"text": {"path": str(self.folder / "sums.jsonl"), "text": "a", "prompt": "q"}}},
            text={"bucket": False},
            seed=SEED,
            agents={**agents, "s": {"model": model["s"]}, **hinted},
            streams={}
            if stream is None
            else {**again, "rollouts": {"generated_by": "s", "prompts": "train", **stream}},
            flows=[
                {
                    "from": name,
                    "to": "s",
                    "stream": "train" if stream is None else "rollouts",
                    "objective": "reverse_kl",
                    "refresh": "step",
                }
                for name in (*self.teachers, *hinted)
            ],
            train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}, **more},
        )

    def revised(self, row: int, answer: list[int]) -> list[int]:
        """What the template makes of a first answer."""
        said = self.words.decode(answer, skip_special_tokens=True)
        return self.first + self.words(f"{said}={self.questions[row]}")["input_ids"]

    def loop(self, rows: list[int]) -> Plain:
        """The plain side, trained."""
        nets = {name: LlamaForCausalLM.from_pretrained(self.folder / name) for name in "s" + self.teachers}
        told = {row: self.told[row] for row in rows}
        more = {key: told if key in ("told", "hinted") else value for key, value in self.plain.items()}
        more |= {"revised": self.revised} if "revised" in more else {}
        plain = Plain(
            nets["s"].train(), [nets[name].eval() for name in self.teachers],
            {row: self.prompts[row] for row in rows}, {row: self.given[row] for row in rows},
            self.eos, self.pad, SEED, SIZE, NEW,
            lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True), **more,
        )  # fmt: skip
        plain.train(EPOCHS)
        return plain


BOTH, END, NONE = ("<s>", "</s>"), ("</s>",), ()
CASES = {
    "greedy": ("t", BOTH, {"sampling": {"greedy": True}}, {"greedy": True}),
    "greedy, no BOS": ("t", END, {"sampling": {"greedy": True}}, {"greedy": True}),
    "sampled, two teachers": ("tu", BOTH, {}, {}),
    "top-p, no token begins or ends": (
        "t", NONE, {"sampling": {"top_p": 0.7, "top_k": 9, "temperature": 1.3}},
        {"top_p": 0.7, "top_k": 9, "temperature": 1.3},
    ),
    "two draws": ("t", END, {"sampling": {"samples": 2}}, {"draws": 2}),
    "half of the batches given": (
        "tu",
        END,
        {"mix": {"of": "train", "share": 0.5}, "refresh": "3 steps"},
        {"share": 0.5, "steps": 3},
    ),
    "itself, told the answer": ("", END, {}, {"hinted": True}),
    "a teacher and itself, both told the answer": ("t", BOTH, {}, {"hinted": True, "told": True}),
    "given texts, itself told the answer": ("", END, None, {"hinted": True, "share": 1.0}),
    "given texts without BOS or EOS, itself told the answer": ("", NONE, None, {"hinted": True, "share": 1.0}),
    "half of the batches given, both told the answer": (
        "t",
        BOTH,
        {"mix": {"of": "train", "share": 0.5}, "refresh": "3 steps"},
        {"hinted": True, "told": True, "share": 0.5, "steps": 3},
    ),
    "answers after its first ones": ("t", BOTH, {"refresh": "2 steps"}, {"steps": 2, "revised": True}),
    "two steps at once": ("t", BOTH, {"refresh": "2 steps"}, {"steps": 2}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_run_and_a_plain_loop_end_with_the_same_weights(case: str, tmp_path: Path) -> None:
    teachers, special, stream, plain = CASES[case]
    both = Both(tmp_path, teachers, special, **plain)
    if stream is not None:
        stream = {**stream, "sampling": {"max_new_tokens": NEW, **stream.get("sampling", {})}}
    mesh = both.mesh(stream)
    loop = both.loop(examine(mesh.plan()).streams["train"].rows.tolist())
    lengths = {len(text) for text in loop.texts}
    assert (0 < sum(map(loop.from_data, range(8))) < 8) == (0 < loop.share < 1)
    if stream is not None:
        assert len(lengths) > 1 if special else lengths == {NEW}
    result = mesh.run(backend="inline")
    start = LlamaForCausalLM.from_pretrained(tmp_path / "s").state_dict()
    for name, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, loop.student.state_dict()[name]), name
        assert not torch.equal(value, start[name]), name
