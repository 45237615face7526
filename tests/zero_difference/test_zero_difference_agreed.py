"""Debates that a vote or judges close: runs and loops of plain transformers choose the same and end with the same
weights."""

from __future__ import annotations

import json
import re
from collections import Counter
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
JUDGES, NAMES = "js", ["1", "2", "3"]  # a frozen agent that debates with nobody, and the student itself
JUDGED = {"best_of": {"verdict": "[1-4]", "names": NAMES}}
ASKED = "{{ a.text }};{{ b.text }};{{ c.text }};{{ prompt }}"


def mesh(both: Both, rounds: int, judges: str = "") -> kdmesh.Mesh:
    """Two frozen agents and a student debate; the student learns what a vote chooses, or what most judges do."""
    stream = {"prompts": "train", "sampling": {"max_new_tokens": NEW}, "refresh": "step"}
    streams: dict[str, Any] = {f"{name}0": {**stream, "generated_by": name} for name in "tus"}
    for turn in range(rounds):
        for name in "tus":
            others = [f"{other}{turn}" for other in "tus" if other != name]
            reads = {"template": SAYS, "reads": dict(zip("ab", others, strict=True))}
            streams[f"{name}{turn + 1}"] = {**stream, "generated_by": name, **reads}
    last = [f"{name}{rounds}" for name in "tus"]
    for name in judges:
        streams[f"by_{name}"] = {
            **stream, "generated_by": name, "reads": dict(zip("abc", last, strict=True)), "template": ASKED,
        }  # fmt: skip
    reads = {"reads": {name: f"by_{name}" for name in judges}} if judges else {}
    streams["agreed"] = {"consensus_of": last, "rule": JUDGED if judges else VOTE, **reads}
    model = {name: {"hf": {"path": str(both.folder / name), "max_length": 40}} for name in "s" + both.teachers}
    return kdmesh.Mesh(
        task="language_modelling",
        data=both.data,
        text={"bucket": False},
        placement="together",
        seed=SEED,
        agents={
            **{name: {"model": model[name], "update": "frozen"} for name in both.teachers},
            "s": {"model": model["s"]},
        },
        streams=streams,
        flows=[{"from": "labels", "to": "s", "stream": "agreed", "objective": "ce"}],
        train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}},
    )


class Debate(Plain):
    """The same by hand; ``both``: decodes and encodes, ``nets``: by name; ``told``: of what judges said."""

    def debate(self, both: Both, nets: dict[str, Any], rounds: int, judges: str = "") -> list[str | None]:
        """Write, read, vote or let judges choose, learn. What was chosen, in order."""
        optimizer, chosen, self.judges = self.make(self.student.parameters()), [], judges
        self.told = Counter[str]()
        for step, batch in enumerate(self.batches(EPOCHS)):
            self.student.eval()
            said = {name: self.turn(nets[name], name, f"{name}0", batch, step, self.prompts) for name in "tus"}
            for turn in range(rounds):
                heard = {name: self.heard(both, batch, [said[who] for who in said if who != name]) for name in said}
                said = {
                    name: self.turn(nets[name], name, f"{name}{turn + 1}", batch, step, heard[name]) for name in said
                }
            asked = self.heard(both, batch, list(said.values()))
            verdicts = [self.turn(nets[name], name, f"by_{name}", batch, step, asked) for name in judges]
            self.student.train()
            texts: list[Learned] = []
            for at, (row, _) in enumerate(batch):
                three = [said[name][at] for name in said]
                tokens = self.judge(three, [one[at] for one in verdicts], both) if judges else vote(three, both)
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
        self, net: Any, name: str, stream: str, batch: list[tuple[int, int]], step: int, asked: dict[int, list[int]]
    ) -> list[list[int]]:
        """What an agent says to the prompts of a batch."""
        found = []
        inner, self.student, self.name = self.student, net, name
        for row, draw in batch:
            found.append(self.drawn(asked[row], self.noise(stream, row, draw, step)))
        self.student = inner
        return found

    def heard(self, both: Both, batch: list[tuple[int, int]], said: list[list[list[int]]]) -> dict[int, list[int]]:
        """What an agent is asked once it has read what others said."""
        found = {}
        for at, (row, _) in enumerate(batch):
            texts = [both.words.decode(one[at], skip_special_tokens=True) for one in said]
            found[row] = both.first + both.words(";".join([*texts, both.questions[row]]))["input_ids"]
        return found

    def judge(self, texts: list[list[int]], verdicts: list[list[int]], both: Both) -> list[int] | None:
        """The text that most judges name by the last number from 1 to 4 in what they say; the first of several."""
        named = [re.findall("[1-4]", both.words.decode(one, skip_special_tokens=True))[-1:] for one in verdicts]
        votes = [sum(one == [name] for one in named) for name in NAMES]
        for name, one in zip(self.judges, named, strict=True):
            self.told[f"verdicts outside the form in {name}"] += one not in [[name] for name in NAMES]
        if not any(votes):
            return None
        self.told["ties"] += votes.count(max(votes)) > 1
        self.told[NAMES[votes.index(max(votes))]] += 1
        return texts[votes.index(max(votes))]


def vote(texts: list[list[int]], both: Both) -> list[int] | None:
    """The first of the texts that begin with what most begin with, half of them at least."""
    begins = [both.words.decode(text, skip_special_tokens=True).strip()[:1] for text in texts]
    votes = Counter(one for one in begins if one)
    if not votes or max(votes.values()) < 0.5 * len(texts):
        return None
    best = max(votes.values())
    return texts[begins.index(next(one for one, count in votes.items() if count == best))]


def loop(both: Both, made: kdmesh.Mesh) -> tuple[Debate, dict[str, Any]]:
    """The plain side, untrained, and its models."""
    rows = examine(made.plan()).streams["train"].rows.tolist()
    nets = {name: LlamaForCausalLM.from_pretrained(both.folder / name).eval() for name in "s" + both.teachers}
    plain = Debate(
        nets["s"], [], {row: both.prompts[row] for row in rows}, {}, both.eos, both.pad, SEED, SIZE, NEW,
        lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True),
    )  # fmt: skip
    return plain, nets


def same(both: Both, made: kdmesh.Mesh, plain: Debate, chosen: list[str | None]) -> Any:
    """Run the mesh: the same texts, and equal weights, of which all have moved. The run."""
    result = made.run(backend="inline", out=both.folder / "runs")
    lines = [json.loads(line) for line in agreed(result).read_text(encoding="utf-8").splitlines()]
    assert [line["text"] if line["kept"] else None for line in lines] == chosen
    assert 0 < sum(one is None for one in chosen) < len(chosen)
    start = LlamaForCausalLM.from_pretrained(both.folder / "s").state_dict()
    for name, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, plain.student.state_dict()[name]), name
        assert not torch.equal(value, start[name]), name
    return result


def agreed(result: Any) -> Path:
    return Path(result.folder) / "streams" / "agreed.jsonl"


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_run_and_a_plain_loop_agree_and_end_with_the_same_weights(rounds: int, tmp_path: Path) -> None:
    both = Both(tmp_path, "tu", BOTH)
    made = mesh(both, rounds)
    plain, nets = loop(both, made)
    same(both, made, plain, plain.debate(both, nets, rounds))


@pytest.mark.parametrize(("rounds", "judges"), [(0, "j"), (1, JUDGES)])
def test_whom_judges_choose_is_whom_a_plain_loop_does(rounds: int, judges: str, tmp_path: Path) -> None:
    """Each of three is chosen at times; some verdicts name nobody, or a fourth."""
    both = Both(tmp_path, "tuj", BOTH)
    made = mesh(both, rounds, judges)
    plain, nets = loop(both, made)
    result = same(both, made, plain, plain.debate(both, nets, rounds, judges))
    tally = result.summary["streams"]["agreed"]
    assert all(plain.told[name] for name in NAMES) and tally["rule"] == "best_of"
    told = {name: count for name, count in plain.told.items() if "outside" in name}
    told |= {"ties broken": plain.told["ties"]}
    assert tally["counted"] == {name: count for name, count in told.items() if count}
    assert tally["dropped"] == {"no verdict": tally["written"] - tally["kept"]}
    assert ("ties broken" in tally["counted"]) == (len(judges) > 1)
