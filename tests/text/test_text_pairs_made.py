"""Pairs that are made of what agents write: which text is chosen and which rejected, and what is refused."""

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
from kdmesh.builtin.datasets.written import written as dataset
from kdmesh.contracts.filter import WrittenText
from kdmesh.engine import trial
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import RunFailed
from kdmesh.filters import Filter
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.hosts.generating import Writing
from kdmesh.hosts.rollouts import Rollouts, row
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


def of_several(**pairs: Any) -> dict[str, Any]:
    """The same student on pairs of what two teachers of unlike tokenizers say, one of them twice."""
    fields = mesh()
    how = {"prompts": "train", "refresh": "epoch", "sampling": {"max_new_tokens": 3}}
    fields["agents"]["u"] = {"model": llama(16, vocabulary=270), "update": "frozen"}
    match = {"match": "[0-4]"}
    given = {"rule": {"best_of": {"metric": {"pattern": match}, "least": 1}}, "pairs": True, **pairs}
    fields["streams"] = {
        "one": {**how, "generated_by": "t"},
        "other": {**how, "generated_by": "u"},
        "again": {**how, "generated_by": "t", "reads": {"a": "other"}, "template": "{{ a.text }}={{ prompt }}"},
        "made": {"consensus_of": ["one", "other", "again"], **given},
    }
    return {**fields, "text": {"max_length": 40}}


def lines_of(folder: Path, name: str) -> list[dict[str, Any]]:
    (path,) = folder.glob(f"*/*/streams/{name}.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_a_rule_makes_pairs_of_the_texts_of_several_writers(tmp_path: Path) -> None:
    """The first right one over the first wrong one, as a count of the files says; who said which stands beside it."""
    summary, folder, _ = run_once(Request(parse(of_several()), backend="inline", out=tmp_path))
    said: dict[tuple[int, int], dict[str, dict[str, Any]]] = defaultdict(dict)
    for name in ("one", "other", "again"):
        for line in lines_of(tmp_path, name):
            said[line["step"], line["sample"]][name] = line
    kept, why = 0, defaultdict(int)
    crossed = set()
    for line in lines_of(tmp_path, "made"):
        texts = said[line["step"], line["sample"]]
        right = {name: any(sign in one["text"] for sign in "01234") for name, one in texts.items()}
        first = {value: next((name for name, one in right.items() if one is value), None) for value in (True, False)}
        if None in first.values():
            why["too low" if first[True] is None else "equally good"] += 1
            assert line["dropped"] == ("too low" if first[True] is None else "equally good")
            continue
        kept += 1
        chosen, rejected = (texts[str(first[value])] for value in (True, False))
        assert line["kept"] and (line["text"], line["producer"]) == (chosen["text"], chosen["producer"])
        assert line["consensus"]["rejected"] == {
            "stream": first[False], "agent": rejected["producer"], "draw": 0, "text": rejected["text"], "served": None,
        }  # fmt: skip
        crossed.add((chosen["producer"], rejected["producer"]))
    tally = summary["streams"]["made"]
    assert (tally["kept"], tally["dropped"]) == (kept, why) and kept > 3 and {("t", "u"), ("u", "t")} <= crossed
    assert any(f"made: {kept} of 32 prompts have a pair, by rule 'best_of'" in note for note in summary["notes"])
    path = folder.root / "streams" / "made.jsonl"
    table = dataset(str(path))
    pairs = [line for line in lines_of(tmp_path, "made") if line["kept"]]
    assert [(one.text, one.rejected) for one in table.texts] == [
        (line["text"], line["consensus"]["rejected"]["text"]) for line in pairs if line["tokens"]
    ]

    said_anew = [
        one["text"]
        for line in lines_of(tmp_path, "made")
        for one, source in ((line, line["consensus"]["from"]), (rejected_of(line), rejected_of(line)))
        if source and source["stream"] == "other"
    ]
    lost = sum(not {*"".join(text.split())} <= {*"0123456789+="} for text in said_anew)
    assert lost == tally["counted"]["not whole in these tokens"] > 0


def rejected_of(line: dict[str, Any]) -> dict[str, Any]:
    """The other text of a pair, and whose it is; nothing where there is none."""
    found: dict[str, Any] = line["consensus"].get("rejected", {})
    return found


def test_filters_see_both_texts_of_a_pair(tmp_path: Path) -> None:
    fields = of_several(keep=[{"pattern": {"without": "[5+]"}}])
    run_once(Request(parse(fields), backend="inline", out=tmp_path))
    found = set()
    for line in lines_of(tmp_path, "made"):
        rejected = line["consensus"].get("rejected")
        if rejected is not None:
            found.add(line["dropped"])
            out = [any(sign in text for sign in "5+") for text in (line["text"], rejected["text"])]
            assert line["dropped"] == ("pattern" if out[0] else "pattern, of the rejected" if out[1] else None)
    assert found == {None, "pattern", "pattern, of the rejected"}


def test_a_batch_has_what_was_rejected_once(tmp_path: Path) -> None:
    """Pairs are what batches count, and every one of an epoch is read once, with both its texts."""
    seen: list[tuple[list[int], int]] = []
    inner = Rollouts.batch

    def batch(self: Rollouts, step: int, size: int, drop_last: bool) -> Any:
        found = inner(self, step, size, drop_last)
        if self.stream.name == "made" and found is not None and self._prompt is not None:
            seen.append((found.x.pairs[:, 0].unique().tolist(), len(found.at)))
            assert {*map(tuple, found.x.pairs[:, :2].tolist())} == {
                (pair, which) for pair in range(len(found.at)) for which in (0, 1)
            }
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_run", lambda *given: None)  # whose pairs are none of the run's
        patch.setattr(Rollouts, "batch", batch)
        run_once(Request(parse(of_several()), backend="inline", out=tmp_path))
    kept = sum(line["kept"] for line in lines_of(tmp_path, "made"))
    assert kept and sum(size for _, size in seen) % kept == 0 and all(size <= 8 for _, size in seen)


REFUSED_OF_SEVERAL: dict[str, tuple[dict[str, Any], str, str]] = {
    "a rule that rejects none": (of_several(rule="joined"), "pairs", "rule 'joined' rejects none of the texts"),
    "a filter beside a rule": (of_several(pairs=DIGIT), "pairs", "no filter is asked"),
    "measured": ({**of_several(measured=True), "metrics": ["exact_match"]}, "measured", "`measured` says nothing"),
    "a reward": (of_several(reward=["exact_match"]), "reward", "`reward` says nothing"),
    "mixed": (of_several(mix={"of": "train", "share": 0.5}), "mix", "which are mixed in, are no pairs"),
    "a tie that is broken": (of_several(rule={"vote": {"ties": "first"}}), "rule.vote.ties", "`ties: first` of rule"),
}


@pytest.mark.parametrize("name", REFUSED_OF_SEVERAL)
def test_what_makes_no_pairs_of_several_is_refused(name: str) -> None:
    fields, field, told = REFUSED_OF_SEVERAL[name]
    with pytest.raises(MeshError, match=told) as caught:
        refuse_unrun(make_plan(parse(fields), registry()), registry(), None)
    assert caught.value.where == f"streams.made.{field}" and caught.value.instead


def test_a_stream_of_pairs_is_read_by_none() -> None:
    fields = of_several()
    how = fields["streams"]["one"]
    fields["streams"]["more"] = {**how, "reads": {"a": "made"}, "template": "{{ a.text }}{{ prompt }}"}
    with pytest.raises(MeshError, match="'made' has pairs of texts, and 'more' reads one") as caught:
        refuse_unrun(make_plan(parse(fields), registry()), registry(), None)
    assert caught.value.where == "streams.more.reads.a"


def test_where_no_prompt_has_a_pair_the_stage_ends() -> None:
    fields = of_several(rule={"best_of": {"metric": {"pattern": {"match": "never"}}, "least": 1}})
    with pytest.raises(RunFailed, match=r"has a pair that rule 'best_of' made .* \(too low 32\)") as caught:
        run_once(Request(parse(fields), backend="inline"))
    assert caught.value.where == "streams.made"


def test_where_no_prompt_has_a_pair_of_what_is_written_once_it_is_told_what_was_said(tmp_path: Path) -> None:
    """At once, with every text in the run's folder: without them nobody would see why."""
    fields = of_several(rule={"best_of": {"metric": {"pattern": {"match": "never"}}, "least": 1}})
    for name in ("one", "other", "again"):
        fields["streams"][name]["refresh"] = "once"
    with pytest.raises(RunFailed, match=r"\(too low 16\), so nothing is learned of them\. To .*") as caught:
        run_once(Request(parse(fields), backend="inline", out=tmp_path))
    first = lines_of(tmp_path, "made")[0]
    said = {name: lines_of(tmp_path, name)[0] for name in ("one", "other", "again")}
    assert {one["sample"] for one in said.values()} == {first["sample"]} and first["dropped"] == "too low"
    told = ", ".join(f"{name} says {one['text']!r}" for name, one in said.items())
    assert caught.value.what.endswith(f". To {first['at']} {told}")
    assert "streams/ of the run's folder" in caught.value.instead


def test_kept_pairs_of_no_token_are_counted_by_who_reads_them(tmp_path: Path) -> None:
    line = {"prompt": "1+1=", "kept": True, "dropped": None, "sample": 0, "draw": 0, "producer": "t", "step": 0}
    lines = [{**line, "text": text, "tokens": len(text), "prompt": f"{at}="} for at, text in enumerate(("2", "", "3"))]
    path = tmp_path / "made.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = dataset(str(path))
    assert len(found.texts) == 2 and found.notes == [f"{path}: 1 texts that were kept have no token, and are left out"]


def test_where_a_filter_makes_no_pair_its_stage_ends() -> None:
    with pytest.raises(RunFailed, match=r"none of the \d+ texts that t wrote is in a pair \(unpaired") as caught:
        run_once(Request(parse(mesh(pairs={"pattern": {"match": "@"}})), backend="inline"))
    assert caught.value.where == "streams.made.pairs" and "keeps some and drops some" in str(caught.value.instead)


def judged(**made: Any) -> dict[str, Any]:
    """Two equal texts, and a judge that reads them in both orders."""
    fields = of_several()
    how = {**fields["streams"]["one"], "refresh": "once", "sampling": {"max_new_tokens": 3, "greedy": True}}
    judge = {**how, "generated_by": "u", "template": "{{ a.text }}{{ b.text }}{{ prompt }}"}
    fields["streams"] = {
        "one": how,
        "other": how,
        "shown": {**judge, "reads": {"a": "one", "b": "other"}},
        "turned": {**judge, "reads": {"a": "other", "b": "one"}},
        "made": {
            "consensus_of": ["one", "other"],
            "reads": {"shown": "shown", "turned": "turned"},
            "rule": {"best_of": {"verdict": "[+=]", "names": {"shown": ["+", "="], "turned": ["=", "+"]}}},
            **made,
        },
    }
    return fields


def test_who_judges_equal_texts_says_nothing_of_them(tmp_path: Path) -> None:
    """One that names what stands first names another text in each order: that is no matter of order."""
    with pytest.raises(RunFailed, match=r"\(equal answers \d+[,;)]"):
        run_once(Request(parse(judged(pairs=True)), backend="inline", out=tmp_path))
    why = {line["dropped"] for line in lines_of(tmp_path, "made")}
    assert "equal answers" in why <= {"equal answers", "no verdict"}


def test_no_pair_has_a_text_of_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sign that stands for no character, and no end after it, is nothing in the tokens of another agent: nothing
    could be learned of it, and its log-probability would be 0."""
    inner = Writing.write

    def write(self: Writing, agent: Any, asked: Any, rows: int) -> list[tuple[list[int], int]]:
        first = self._encoder.tokenizer.bos_token_id
        return [
            ([*ids[:before], first], before) if agent.name == "u" and at % 2 == 0 else (ids, before)
            for at, (ids, before) in enumerate(inner(self, agent, asked, rows))
        ]

    monkeypatch.setattr(Writing, "write", write)
    summary = run_once(Request(parse(of_several()), backend="inline", out=tmp_path))[0]
    assert summary["streams"]["made"]["dropped"]["no token in one"] > 0
    for line in lines_of(tmp_path, "made"):
        said = {line["text"], rejected_of(line).get("text", line["text"])}
        assert line["dropped"] != "no token in one" or ("" in said and len(said) == 2)


@pytest.mark.parametrize(
    ("fields", "pairs"),
    [(mesh(), True), (of_several(), True), (judged(), False)],
    ids=["a filter", "a rule", "a judge, and no pairs"],
)
def test_check_tries_what_learns_of_texts_that_are_compared(
    fields: dict[str, Any], pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the texts of the trial are those of the data, whoever writes them, so that none is over another, and a
    judge says no verdict."""
    seen: list[bool] = []
    inner = Rollouts.batch

    def batch(self: Rollouts, step: int, size: int, drop_last: bool) -> Any:
        found = inner(self, step, size, drop_last)
        if self.stream.name == "made" and found is not None:
            seen.append(found.x.texts is not None and len(found.x.pairs) > 0)
        return found

    monkeypatch.setattr(Rollouts, "batch", batch)
    found = examine(make_plan(parse(fields), registry()))
    assert seen and any(seen) is pairs and not [note for note in found.notes if "trial" in note]
