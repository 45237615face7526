"""Reasoning and answer: where a text is cut, whose loss is of which part, and what looks after the reasoning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_text_rollouts import mesh
from text_meshes import llama

from kdmesh.builtin.metrics.exact_match import ExactMatch
from kdmesh.builtin.metrics.numeric_answer import NumericAnswer
from kdmesh.contracts.filter import parted
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.filters import Answer, Candidate, Vote, WrittenText
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.parts import alone, cut
from kdmesh.plugins import registry
from kdmesh.spec.read import parse, read_mesh

MARKS = ("<think>", "</think>")


class Letters:
    """Two letters a token, and one that ends."""

    all_special_ids = (99,)

    def __init__(self, text: str) -> None:
        self.pieces = [text[at : at + 2] for at in range(0, len(text), 2)]

    def decode(self, ids: Any) -> str:
        return "".join(self.pieces[one] for one in ids)


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("<think>7+2=9</think>19", "<think>7+2=9</think>"),
        ("7+2=9</think>19", "7+2=9</think>"),
        ("a</think>b</think>c", "a</think>b</think>"),
        ("<think>on and on", "<think>on and on"),
        ("19", ""),
    ],
)
def test_a_text_is_cut_after_its_last_mark_in_words_and_in_tokens(text: str, reasoning: str) -> None:
    assert parted(text, MARKS) == (reasoning, text[len(reasoning) :])
    known = Letters(text)
    found = cut(known, [*range(len(known.pieces)), *([99] if text.endswith("9") else [])], MARKS)
    assert found == (len(reasoning) + 1) // 2
    assert parted(text, None) == ("", text) and parted("a>b>c", ("", ">")) == ("a>b>", "c")


def test_factors_are_those_of_a_mean_over_the_part() -> None:
    inside, losses = torch.tensor([True, False, True, True]), torch.tensor([1.0, 10.0, 2.0, 6.0])
    assert (alone(inside, None) * losses).mean() == 3.0
    assert (alone(inside, torch.tensor([1.0, 1.0, 0.0, 2.0])) * losses).mean() == 6.5
    assert not alone(~inside & inside, None).any()


def test_answers_are_looked_for_after_the_reasoning() -> None:
    text = WrittenText(0, 0, "7+12=", "<think>7+2=9</think>so 19", 9, True, "<think>it is 20</think>19", marks=MARKS)
    assert NumericAnswer(None).of(text) == 1.0 and ExactMatch(r"\d+", False).of(text) == 1.0
    assert Answer(None, None, True).keep([text]) == [True]
    never = WrittenText(1, 0, "7+12=", "<think>19", 9, False, "19", marks=MARKS)
    assert NumericAnswer(None).of(never) == 0.0
    choice = Vote(r"\d+", False, 0.0, "abstain").choose([Candidate(one, "s", "a") for one in (never, text)], {})
    assert choice.chosen == 1 and choice.told["silent"] == 1


def test_losses_of_parts_are_those_of_a_plain_mean() -> None:
    """Both parts, weighed by how many tokens they have in all, are the whole: on texts of one length, one a batch."""
    text = {"max_length": 24, "reasoning": ["", ">"]}
    fields: dict[str, Any] = {
        "task": "language_modelling",
        "data": {"dataset": {"sums": {"below": 3, "explained": True}}, "train": 4},
        "agents": {"s": {"model": llama(8, vocabulary=None)}},
        "train": {"steps": 8, "batch_size": 1, "optimizer": {"sgd": {"lr": 0.1}}},
    }
    flow = {"from": "labels", "to": "s", "objective": "ce"}  # `1+2=` is answered by `3`, `>`, `3` and an end
    parts = [{**flow, "part": "reasoning", "weight": 0.5}, {**flow, "part": "answer", "weight": 0.5}]
    one, two = (
        run_once(Request(parse({**fields, "text": text, "flows": flows}), "inline"))[0]["agents"]["s"]["metrics"]
        for flows in ([flow], parts)
    )
    assert one["test"]["bits_per_character"] == pytest.approx(two["test"]["bits_per_character"], abs=1e-5)
    only = run_once(Request(parse({**fields, "text": text, "flows": parts[:1]}), "inline"))[0]["agents"]["s"]["metrics"]
    assert abs(only["test"]["bits_per_character"] - one["test"]["bits_per_character"]) > 1e-3


PART = {"from": "t", "to": ["s", "u"], "stream": "rollouts", "objective": "reverse_kl", "part": "answer"}
TEXT = {"reasoning": ["<think>", "</think>"]}
REFUSED = [
    ({**mesh(), "flows": [PART]}, "flows.0.part", "nothing says where reasoning ends"),
    ({**mesh(), "text": TEXT, "flows": [{**PART, "denominator": {"group": "kind"}}]}, "flows.0.part", "a denominator"),
    ({**mesh(), "text": TEXT, "flows": [PART], "train": {"steps": 3, "batch_size": 4, "accumulate": 2}},
     "flows.0.part", "accumulates batches"),
    ({**mesh(), "text": TEXT, "consensus": {"c": "mean"}, "flows": [{**PART, "to": "c", "objective": None},
     {"from": "c", "to": ["s", "u"], "stream": "rollouts", "objective": "kl"}]}, "flows.0.part", "adds no loss"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_cannot_be_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where and what in caught.value.what and caught.value.instead


def test_marks_are_two_and_of_texts() -> None:
    for marks in (["<think>"], ["<think>", ""]):
        with pytest.raises(MeshError) as caught:
            parse({**mesh(), "text": {"reasoning": marks}})
        assert caught.value.where == "text.reasoning"


def test_the_bundled_mesh_runs() -> None:
    fields = read_mesh("rationale").dump()
    fields["data"]["dataset"] = {"sums": {"below": 6, "explained": True}}
    fields["train"]["epochs"] = 40
    summary = run_once(Request(parse(fields), "inline"))[0]
    assert summary["streams"]["explained"]["kept"] > 0
