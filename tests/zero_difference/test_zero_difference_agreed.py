"""Debate and vote: a run and a loop of plain transformers choose the same texts and end with the same weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_rollouts import Learned, Plain
from test_zero_difference_rollouts import BOTH, EPOCHS, NEW, SEED, SIZE, Both
from transformers import LlamaForCausalLM

import kdmesh
from kdmesh.engine.check import examine

SAYS = "{{ a.text }};{{ b.text }};{{ prompt }}"
VOTE = {"vote": {"pattern": "^.", "ties": "first", "share": 0.5}}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The mesh's agents compute with one thread, so the plain loops do too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mesh(both: Both, rounds: int, placement: str = "together", refresh: str = "step") -> kdmesh.Mesh:
    """Two frozen agents and a student debate; the student learns what a vote chooses."""
    stream = {"prompts": "train", "sampling": {"max_new_tokens": NEW}, "refresh": refresh}
    streams: dict[str, Any] = {f"{name}0": {**stream, "generated_by": name} for name in "tus"}
    for turn in range(rounds):
        for name in "tus":
            others = [f"{other}{turn}" for other in "tus" if other != name]
            reads = {"template": SAYS, "reads": dict(zip("ab", others, strict=True))}
            streams[f"{name}{turn + 1}"] = {**stream, "generated_by": name, **reads}
    streams["agreed"] = {"consensus_of": [f"{name}{rounds}" for name in "tus"], "rule": VOTE}
    model = {name: {"hf": {"path": str(both.folder / name), "max_length": 40}} for name in "stu"}
    return kdmesh.Mesh(
        task="language_modelling",
        data=both.data,
        text={"bucket": False},
        placement=placement,
        seed=SEED,
        agents={
            "t": {"model": model["t"], "update": "frozen"},
            "u": {"model": model["u"], "update": "frozen"},
            "s": {"model": model["s"]},
        },
        streams=streams,
        flows=[{"from": "labels", "to": "s", "stream": "agreed", "objective": "ce"}],
        train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}},
    )


class Debate(Plain):
    """The same by hand; ``words``: decodes and encodes, ``nets``: by name."""

    def debate(self, both: Both, nets: dict[str, Any], rounds: int) -> list[str | None]:
        """Write, read, vote, learn. What was chosen, in order."""
        optimizer, chosen = self.make(self.student.parameters()), []
        for step, batch in enumerate(self.batches(EPOCHS)):
            self.student.eval()
            said = {name: self.turn(nets[name], name, 0, batch, step, self.prompts) for name in nets}
            for turn in range(rounds):
                said = {name: self.turn(nets[name], name, turn + 1, batch, step, self.heard(both, name, batch, said))
                        for name in nets}  # fmt: skip
            self.student.train()
            texts: list[Learned] = []
            for at, (row, _) in enumerate(batch):
                tokens = vote([said[name][at] for name in nets], both)
                chosen.append(None if tokens is None else both.words.decode(tokens, skip_special_tokens=True))
                if tokens is not None:
                    texts.append((self.prompts[row] + tokens, len(self.prompts[row])))
            if texts:
                optimizer.zero_grad()
                targets = torch.tensor([token for ids, asked in texts for token in ids[asked:]])
                torch.nn.functional.cross_entropy(self.answers(self.student, texts), targets).backward()
                optimizer.step()
        return chosen

    @torch.no_grad()
    def turn(
        self, net: Any, name: str, turn: int, batch: list[tuple[int, int]], step: int, asked: dict[int, list[int]]
    ) -> list[list[int]]:
        """What an agent says to the prompts of a batch."""
        found = []
        inner, self.student, self.name = self.student, net, name
        for row, draw in batch:
            found.append(self.drawn(asked[row], self.noise(f"{name}{turn}", row, draw, step)))
        self.student = inner
        return found

    def heard(
        self, both: Both, name: str, batch: list[tuple[int, int]], said: dict[str, list[list[int]]]
    ) -> dict[int, list[int]]:
        """What an agent is asked once it has read the others."""
        found = {}
        for at, (row, _) in enumerate(batch):
            one, two = (both.words.decode(said[who][at], skip_special_tokens=True) for who in said if who != name)
            found[row] = both.first + both.words(f"{one};{two};{both.questions[row]}")["input_ids"]
        return found


def vote(texts: list[list[int]], both: Both) -> list[int] | None:
    """The first of the texts that begin with what most begin with, half of them at least."""
    begins = [both.words.decode(text, skip_special_tokens=True).strip()[:1] for text in texts]
    votes = Counter(one for one in begins if one)
    if not votes or max(votes.values()) < 0.5 * len(texts):
        return None
    best = max(votes.values())
    return texts[begins.index(next(one for one, count in votes.items() if count == best))]


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_run_and_a_plain_loop_agree_and_end_with_the_same_weights(rounds: int, tmp_path: Path) -> None:
    both = Both(tmp_path, "tu", BOTH)
    made = mesh(both, rounds)
    rows = examine(made.plan()).streams["train"].rows.tolist()
    nets = {name: LlamaForCausalLM.from_pretrained(tmp_path / name).eval() for name in "tus"}
    plain = Debate(
        nets["s"], [], {row: both.prompts[row] for row in rows}, {}, both.eos, both.pad, SEED, SIZE, NEW,
        lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True),
    )  # fmt: skip
    chosen = plain.debate(both, nets, rounds)
    result = made.run(backend="inline", out=tmp_path / "runs")
    (file,) = (tmp_path / "runs").glob("*/*/streams/agreed.jsonl")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["text"] if line["kept"] else None for line in lines] == chosen
    assert 0 < sum(one is None for one in chosen) < len(chosen)
    start = LlamaForCausalLM.from_pretrained(tmp_path / "s").state_dict()
    for name, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, nets["s"].state_dict()[name]), name
        assert not torch.equal(value, start[name]), name
