"""Pairs that are made of what an agent writes: which text is chosen and which rejected, and what is refused."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import llama

from kdmesh import MeshError
from kdmesh.contracts.filter import WrittenText
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import RunFailed
from kdmesh.filters import Filter
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.hosts.rollouts import row
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.streams.tokens import Encoded, side_by_side

DIGIT = {"pattern": {"match": "[0-4]"}}


def mesh(**stream: Any) -> dict[str, Any]:
    """A student that compares both answers of pairs with a frozen teacher, who writes them."""
    sampling = {"max_new_tokens": 3, "samples": 4}
    made = {"generated_by": "t", "prompts": "train", "refresh": "epoch", "sampling": sampling, "pairs": DIGIT, **stream}
    return {
        "task": "language_modelling",
        "data": {"dataset": {"sums": {"below": 6}}, "train": 16},
        "agents": {
            "t": {"model": llama(16, vocabulary=None), "update": "frozen"},
            "s": {"model": llama(8, vocabulary=None)},
        },
        "streams": {"made": {key: value for key, value in made.items() if value is not None}},
        "flows": [{"from": "t", "to": "s", "stream": "made", "objective": "kl"}],
        "train": {"epochs": 2, "batch_size": 8},
        "placement": "together",
    }


def written(fields: dict[str, Any], folder: Path) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The lines of each prompt, by step and sample."""
    run_once(Request(parse(fields), backend="inline", out=folder))
    (path,) = folder.glob("*/*/streams/made.jsonl")
    found = defaultdict(list)
    for line in map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1]):
        found[line["step"], line["sample"]].append(line)
    return found


def test_the_first_text_that_is_kept_is_chosen_over_the_first_that_is_dropped(tmp_path: Path) -> None:
    pairs = 0
    for lines in written(mesh(), tmp_path).values():
        assert len(lines) == 4
        good = [line["draw"] for line in lines if any(sign in line["text"] for sign in "01234")]
        bad = [line["draw"] for line in lines if line["draw"] not in good]
        why = {line["draw"]: line["dropped"] for line in lines}
        if not good or not bad:
            assert set(why.values()) == {"unpaired"}
            continue
        pairs += 1
        assert {draw for draw, reason in why.items() if reason is None} == {min(good)}
        assert {draw for draw, reason in why.items() if reason == "rejected"} == {min(bad)}
    assert pairs > 3


def test_filters_come_before_and_what_they_drop_is_in_no_pair(tmp_path: Path) -> None:
    found = written(mesh(keep=[{"length": {"max": 2}}]), tmp_path)
    every = [line for lines in found.values() for line in lines]
    assert {line["dropped"] for line in every} == {None, "rejected", "unpaired", "length"}
    assert all(line["tokens"] <= 2 for line in every if line["dropped"] != "length")
    assert every[0]["filters"] == [{"length": {"max": 2}}, DIGIT]


def test_an_empty_answer_is_rejected_like_any_other(tmp_path: Path) -> None:
    """It has one token, that ends it, so that nothing is divided by 0 and the student learns of it."""
    fields = mesh(pairs={"length": {"min": 1}})
    summary = run_once(Request(parse(fields), backend="inline", out=tmp_path))[0]
    (path,) = tmp_path.glob("*/*/streams/made.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rejected = [line for line in lines if line["dropped"] == "rejected"]
    assert rejected and all((line["text"], line["tokens"], line["ended"]) == ("", 0, True) for line in rejected)
    assert all(line["tokens"] for line in lines if line["kept"])
    assert summary["streams"]["made"]["kept"] == len(rejected) and summary["agents"]["s"]["updates"] > 0
    assert any("have no token before their end" in note for note in summary["notes"])


def test_an_agent_chooses_the_text_that_it_finds_likeliest(tmp_path: Path) -> None:
    texts = [
        WrittenText(at // 3, at % 3, "", "", 1, True, loss=loss)
        for at, loss in enumerate([3, 1, 1, 2, float("nan"), 5])
    ]
    made: Filter = registry().find("filters", "likeliest").make({})
    assert made.keep(texts) == [False, True, False, True, False, False]
    fields = mesh(sampling={"max_new_tokens": 3, "samples": 2}, pairs={"likeliest": {"of": "judge"}})
    fields["agents"]["judge"] = {"model": llama(8, 2, vocabulary=None), "update": "frozen"}
    fields["flows"].append({"from": "judge", "to": "s", "stream": "made", "objective": "kl", "weight": 0.1})
    for lines in written(fields, tmp_path).values():
        assert sorted(str(line["dropped"]) for line in lines) in (["None", "rejected"], ["unpaired", "unpaired"])


@pytest.mark.parametrize("pairs", ["best", f"{__name__}:Shortest"])
def test_the_best_is_chosen_over_the_worst(pairs: str, tmp_path: Path) -> None:
    reward = [{"pattern": {"match": "[0-4]"}}, {"pattern": {"match": "[02468]", "weight": 0.5}}]
    chosen = 0
    for lines in written(mesh(pairs=pairs, reward=reward), tmp_path).values():
        good = [line["reward"] if pairs == "best" else -float(line["tokens"]) for line in lines]
        why = [line["dropped"] for line in lines]
        if len(set(good)) == 1:
            assert set(why) == {"unpaired"}
            continue
        chosen += 1
        assert why.index(None) == good.index(max(good)) and why.index("rejected") == good.index(min(good))
        assert why.count(None) == why.count("rejected") == 1
    assert chosen > 3


class Shortest(Filter):
    """A filter of one's own that ranks."""

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        raise AssertionError("it ranks, so that it is not asked which it keeps")

    def scores(self, texts: Sequence[WrittenText]) -> list[float]:
        return [-float(one.tokens) for one in texts]


def test_texts_of_which_nothing_is_known_are_in_no_pair() -> None:
    worth = [1.0, None, 0.5, None, None, 2.0, 2.0]
    texts = [WrittenText(at // 3, at % 3, "", "", 1, True, reward=reward) for at, reward in enumerate(worth)]
    made: Filter = registry().find("filters", "best").make({})
    assert made.keep(texts) == [True, False, False, False, False, True, True]
    scores = made.scores(texts)
    assert scores is not None and [None if one != one else one for one in scores] == worth


def test_scores_that_are_none_are_refused(tmp_path: Path) -> None:
    for name, said in (("Wordy", "which is no number"), ("Few", "not a number for each"), ("Broken", "no such thing")):
        with pytest.raises(RunFailed, match=f"{name} failed on what t wrote for 'made'.*{said}") as caught:
            written(mesh(pairs=f"{__name__}:{name}"), tmp_path)
        assert caught.value.where == "streams.made.pairs"


class Wordy(Shortest):
    def scores(self, texts: Sequence[WrittenText]) -> list[Any]:
        return ["good" for _ in texts]


class Few(Shortest):
    def scores(self, texts: Sequence[WrittenText]) -> list[float]:
        return [1.0]


class Broken(Shortest):
    def scores(self, texts: Sequence[WrittenText]) -> list[float]:
        raise KeyError("no such thing")


def test_a_batch_has_both_texts_of_its_pairs() -> None:
    good, bad = row([5, 6, 7, 8], 2), row([5, 6, 9], 2)
    empty = row([5, 6, 2], 2)  # who said nothing said that the text ends
    texts = Encoded.of([side_by_side(good, bad), row([1, 2], 1), side_by_side(bad, good), side_by_side(good, empty)], 0)
    assert texts.batch(torch.tensor([3])).pairs.tolist() == [[0, 0, 7], [0, 0, 8], [0, 1, 2]]
    batch = texts.batch(torch.tensor([2, 0]))
    assert batch.ids.tolist() == [[5, 6, 9, 0], [5, 6, 7, 8], [5, 6, 7, 8], [5, 6, 9, 0]]
    assert batch.pairs.tolist() == [[0, 0, 9], [0, 1, 7], [0, 1, 8], [1, 0, 7], [1, 0, 8], [1, 1, 9]]


ONE = {"max_new_tokens": 3}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing judges": (mesh(pairs=True), "these texts are written, and are no pairs yet"),
    "one text": (mesh(sampling=ONE), "compares the texts of a prompt, and one is written to each"),
    "divided": (mesh(refresh="step", sampling={**ONE, "samples": 3}), "batches of 8 divide them"),
    "mixed": (mesh(mix={"of": "train", "share": 0.5}), "which are mixed in, are no pairs"),
    "given": ({**mesh(), "streams": {"made": {"of": "train", "pairs": DIGIT}}}, "the data say which answer is chosen"),
    "labels": (
        {**mesh(), "flows": [{"from": "labels", "to": "s", "stream": "made", "objective": "ce"}]},
        "that are rejected, too",
    ),
    "no such agent": (mesh(pairs={"likeliest": {"of": "nobody"}}), "unknown agent 'nobody'"),
    "no reward": (mesh(pairs="best"), "asks how right each text is, and nothing says so on 'made'"),
    "no such setting": (mesh(pairs={"answer": {"numerical": True}}), "numerical"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_pairs_is_refused(name: str) -> None:
    fields, told = REFUSED[name]
    with pytest.raises(MeshError, match=told):
        refuse_unrun(make_plan(parse(fields), registry()), registry(), None)
