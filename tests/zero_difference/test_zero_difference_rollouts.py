"""On-policy distillation: a run and a loop of plain transformers write the same texts and end with the same weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_rollouts import Plain
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import kdmesh
from kdmesh.engine.check import examine

EPOCHS, SIZE, SEED, NEW = 2, 6, 7, 5
SIGNS = "0123456789+="
KINDS = ["small", "large"]


def tokenizer(special: tuple[str, ...], signs: str = SIGNS) -> PreTrainedTokenizerFast:
    """A token for each sign; which of BOS and EOS there are."""
    known = ["<pad>", *special, *signs]
    made = Tokenizer(models.WordLevel({token: number for number, token in enumerate(known)}, "<pad>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", **{key: name for key, name in names.items() if name in special}
    )


class Both:
    """A mesh over saved models, and the same models and prompts for a plain loop."""

    signs = SIGNS

    @staticmethod
    def says(a: int, b: int) -> str:
        """What the data answer."""
        return str(a + b)

    def __init__(self, folder: Path, teachers: str, special: tuple[str, ...], **plain: Any) -> None:
        words, self.teachers = tokenizer(special, self.signs), teachers
        pairs = [(a, b) for a in range(5) for b in range(5)]
        lines = [{"q": f"{a}+{b}" + "=" * (a % 3), "a": self.says(a, b), "kind": KINDS[a > 2]} for a, b in pairs]
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
        self.data = {"dataset": {"text": {"path": str(folder / "sums.jsonl"), "text": "a", "prompt": "q"}}}
        self.kinds = [KINDS.index(line["kind"]) for line in lines]
        self.questions, self.first, self.words = [line["q"] for line in lines], first, words
        self.prompts = [first + q for q, _ in ids]
        self.given = [(first + q + a + last, len(first + q)) for q, a in ids]
        self.eos, self.pad = words.eos_token_id, words.pad_token_id

    def mesh(self, stream: dict[str, Any] | None, placement: str = "together", **more: Any) -> kdmesh.Mesh:
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
            data=self.data,
            text={"bucket": False},
            placement=placement,
            seed=SEED,
            agents={**agents, "s": {"model": model["s"]}, **hinted},
            streams={}
            if stream is None
            else {**again, "rollouts": {"generated_by": "s", "prompts": "train", **stream}},
            consensus={} if "merge" not in self.plain else {"c": RULES[self.plain["merge"]]},
            flows=self.flows((*self.teachers, *hinted), "train" if stream is None else "rollouts"),
            train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}, **more},
        )

    def flows(self, teachers: Sequence[str], stream: str) -> list[dict[str, Any]]:
        """From each teacher, or from a consensus of all of them."""
        more: dict[str, Any] = {"stream": stream, "to": "s", "objective": "reverse_kl"}
        more |= {"denominator": {"group": "kind"}} if "groups" in self.plain else {}
        if "merge" not in self.plain:
            return [{**more, "from": name, "refresh": "step"} for name in teachers]
        return [*({"from": name, "to": "c", "stream": stream, "refresh": "step"} for name in teachers),
                {**more, "from": "c"}]  # fmt: skip

    def merged(self, probs: Tensor, rows: Tensor) -> Tensor:
        """What the consensus says of each token."""
        if self.plain["merge"] == "mean":
            return (probs[0] + probs[1]) / 2
        kinds = torch.tensor([self.kinds[row] for row in rows.tolist()])
        return torch.where((kinds == 0)[:, None], probs[0], probs[1])

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
        more |= {"merge": self.merged} if "merge" in more else {}
        more |= {"groups": {row: self.kinds[row] for row in rows}} if "groups" in more else {}
        plain = Plain(
            nets["s"].train(), [nets[name].eval() for name in self.teachers],
            {row: self.prompts[row] for row in rows}, {row: self.given[row] for row in rows},
            self.eos, self.pad, SEED, SIZE, NEW,
            lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True), **more,
        )  # fmt: skip
        plain.train(EPOCHS)
        return plain


RULES = {"mean": "mean", "route": {"rule": "route", "column": "kind", "to": {"small": "t", "large": "u"}}}
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
    "two teachers agree on each token": ("tu", BOTH, {}, {"merge": "mean"}),
    "two teachers, by the kind of the question": ("tu", END, {"refresh": "2 steps"}, {"merge": "route", "steps": 2}),
    "two teachers, each kind averaged by itself": ("tu", BOTH, {}, {"groups": True}),
    "routed, each kind averaged by itself, half given": (
        "tu",
        END,
        {"mix": {"of": "train", "share": 0.5}},
        {"merge": "route", "groups": True, "share": 0.5},
    ),
    "given texts, each kind averaged by itself": ("", END, None, {"hinted": True, "share": 1.0, "groups": True}),
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


def test_routes_and_groups_are_the_same_wherever_agents_are(tmp_path: Path) -> None:
    both = Both(tmp_path, "tu", END, merge="route", groups=True)
    found = []
    for placement in ("together", "spread"):
        mesh = both.mesh({"sampling": {"max_new_tokens": NEW}}, placement, epochs=1)
        found.append(mesh.run(backend="inline")["s"].module.net.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_two_students_learn_on_what_the_other_wrote(tmp_path: Path) -> None:
    both = Both(tmp_path, "u", BOTH)
    hf: dict[str, Any] = {name: {"model": {"hf": {"path": str(tmp_path / name), "max_length": 40}}} for name in "su"}
    stream = {"prompts": "train", "sampling": {"max_new_tokens": NEW}}
    flow = {"objective": "reverse_kl", "refresh": "step"}
    mesh = kdmesh.Mesh(
        task="language_modelling",
        data=both.data,
        seed=SEED,
        agents=hf,
        streams={name: {**stream, "generated_by": name[0]} for name in ("s_says", "u_says")},
        flows=[
            {"from": "u", "to": "s", "stream": "u_says", **flow},
            {"from": "s", "to": "u", "stream": "s_says", **flow},
        ],
        train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}},
    )
    rows = examine(mesh.plan()).streams["train"].rows.tolist()
    nets = {name: LlamaForCausalLM.from_pretrained(tmp_path / name) for name in "su"}
    sides = {
        name: Plain(
            nets[name].train(), [], {row: both.prompts[row] for row in rows}, {}, both.eos, both.pad, SEED, SIZE, NEW,
            lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True),
            name=name, stream=f"{name}_says",
        )
        for name in "su"
    }  # fmt: skip
    optimizers = {name: side.make(side.student.parameters()) for name, side in sides.items()}
    for step, batch in enumerate(sides["s"].batches(EPOCHS)):
        texts = {name: side.write(batch, step) for name, side in sides.items()}
        said = {name: side.answers(side.student, texts[name]).detach() for name, side in sides.items()}
        for name, other in ("su", "us"):
            sides[name].learn(optimizers[name], texts[other], [row for row, _ in batch], [said[other]])
    result = mesh.run(backend="inline")
    for name, net in nets.items():
        start = LlamaForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for key, value in result[name].module.net.state_dict().items():
            assert torch.equal(value, net.state_dict()[key]), (name, key)
            assert not torch.equal(value, start[key]), (name, key)
