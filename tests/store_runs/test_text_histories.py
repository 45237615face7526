"""What agents agreed on, in words, kept by round: who said what, shown, and taught to a mesh that names the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.builtin.datasets.written import written
from kdmesh.cli import main
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.draw import draw
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

CONFIG = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 1, "intermediate_size": 16, "max_position_embeddings": 24}  # fmt: skip
MODEL = {"hf": {"config": CONFIG, "tokenizer": {"characters": {}}}}
WRITES = {"prompts": "train", "sampling": {"max_new_tokens": 3}, "refresh": "epoch"}


def mesh(history: Any = "all", **more: Any) -> dict[str, Any]:
    """Three agents, one of which learns, answer anew each epoch; a vote says what is learned."""
    streams: dict[str, Any] = {f"of_{name}": {**WRITES, "generated_by": name} for name in "abs"}
    agreed = {"consensus_of": [*streams], "rule": {"vote": {"pattern": "[0-9]", "ties": "first"}}}
    return {
        "name": "council",
        "task": "language_modelling",
        "data": {"dataset": {"sums": {"below": 5}}, "train": 16},
        "agents": {"a": {"model": MODEL, "update": "frozen"}, "b": {"model": MODEL, "update": "frozen", "seed": 7},
                   "s": {"model": MODEL}},
        "streams": {**streams, "agreed": {**agreed, **({} if history is None else {"history": history}), **more}},
        "flows": [{"from": "labels", "to": "s", "stream": "agreed", "objective": "ce"}],
        "text": {"max_length": 24},
        "train": {"epochs": 2, "batch_size": 8, "optimizer": {"adamw": {"lr": 3e-3}}},
    }  # fmt: skip


def run(fields: dict[str, Any], store: Any, out: Path | None = None, **more: Any) -> dict[str, Any]:
    return run_once(Request(parse(fields), "inline", store=str(store), out=out, **more))[0]


def said(summary: dict[str, Any]) -> Any:
    return {name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()}


def lines(out: Path, stream: str) -> list[dict[str, Any]]:
    (file,) = out.glob(f"*/*/streams/{stream}.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def show(key: str, store: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    assert main(["store", "show", key, "--store", str(store), *more]) == 0
    return capsys.readouterr().out


def test_two_rounds_of_votes_are_kept_shown_and_taught(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    without, summary = run(mesh(), "off"), run(mesh(), store, out)
    assert said(without) == said(summary)
    assert any("history of agreed is not kept" in note for note in without["notes"])
    known = summary["store"]["histories"]["agreed"]
    assert known["rounds"] == 2 and known["entries"].keys() == {"agreed"}
    key = known["entries"]["agreed"]

    texts: dict[tuple[int, int], dict[str, str]] = {}  # what the files say that each said
    for name in "abs":
        for line in lines(out, f"of_{name}"):
            texts.setdefault((line["sample"], line["step"]), {})[name] = line["text"]
    steps = sorted({step for _, step in texts})
    assert len(steps) == 2
    chosen = [line for line in lines(out, "agreed") if line["consensus"]["from"]]
    for line in chosen[:2] + chosen[-2:]:
        round, number = steps.index(line["step"]) + 1, str(line["sample"])
        records = json.loads(show(key[:12], store, capsys, "--sample", number, "--json"))
        assert [one["round"] for one in records] == [1, 2] and records[0]["who"] == "council/agreed"
        record = records[round - 1]["values"]
        assert {one["agent"]: one["text"] for one in record["consensus"]["said"]} == texts[line["sample"], line["step"]]
        assert record == {name: value for name, value in line.items() if name != "time"}
    number = str(chosen[0]["sample"])
    printed = show(key[:12], store, capsys, "--sample", number)
    assert all(len(line) <= 80 for line in printed.splitlines())
    for round in (1, 2):
        assert f"round {round}: council/agreed of sample {number}: {chosen[0]['prompt']}" in printed
    told = chosen[0]["consensus"]
    assert f"vote chose {told['answer']}, by {told['votes'][told['answer']]} of 3" in printed and "chosen" in printed
    assert f"{told['votes'][told['answer']] / 3:.2f}" in printed
    assert "history of texts, all" in show_list(store, capsys)

    taught(key, store, chosen, steps, tmp_path)


def show_list(store: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["store", "ls", "--store", str(store)]) == 0
    return capsys.readouterr().out


def taught(key: str, store: Path, chosen: list[dict[str, Any]], steps: list[int], folder: Path) -> None:
    """A later mesh learns what was agreed on, as it stood after a round, and says of which run that is."""
    for round in (1, 2):
        table = written(entry=key, round=round, store=str(store))
        expected = sorted((one["sample"], one["text"]) for one in chosen if one["step"] == steps[round - 1])
        assert [(int(a), one.text) for a, one in zip(table.columns["sample"], table.x, strict=True)] == expected
        assert {*table.columns["rule"]} == {"vote"} and "" not in table.columns["share"]
    data = {"dataset": {"written": {"entry": key[:10]}}, "validation": 0, "test": 2}
    flows = [{"from": "labels", "to": "s", "objective": "ce"}]
    later = {"task": "language_modelling", "data": data, "agents": {"s": {"model": MODEL}}, "flows": flows,
             "text": {"max_length": 24}, "train": {"steps": 2, "batch_size": 4}}  # fmt: skip
    run(later, store, folder / "later")
    (manifest,) = (folder / "later").glob("*/*/manifest.json")
    kept = json.loads(manifest.read_text(encoding="utf-8"))
    assert kept["mesh"]["data"]["dataset"] == {"written": {"entry": key, "round": 2, "store": str(store)}}
    assert "agreed of council, seed 0, run " in kept["data"]["source"] and "after round 2" in kept["data"]["source"]


def test_pairs_are_kept_with_what_was_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The winning side over what dissents: shown, and taught to a later mesh as pairs."""
    fields = mesh(pairs=True, rule={"vote": {"pattern": "[0-9]"}})
    fields["flows"] = [{"from": "a", "to": "s", "stream": "agreed", "objective": "kl"}]
    store = tmp_path / "store"
    key = run(fields, store, tmp_path / "out")["store"]["histories"]["agreed"]["entries"]["agreed"]
    last = {line["sample"]: line for line in lines(tmp_path / "out", "agreed")}
    pairs = [line for _, line in sorted(last.items()) if line["kept"] and line["tokens"]]
    table = written(entry=key, store=str(store))
    assert [(one.text, one.rejected) for one in table.texts] == [
        (line["text"], line["consensus"]["rejected"]["text"]) for line in pairs
    ]
    printed = show(key[:12], store, capsys, "--sample", str(pairs[0]["sample"]))
    assert "chosen" in printed and "rejected" in printed and all(len(line) <= 80 for line in printed.splitlines())
    later = {**mesh(None), "data": {"dataset": {"written": {"entry": key}}, "validation": 0, "test": 2}}
    later["streams"] = {"pairs": {"of": "train", "pairs": True}}
    later["flows"] = [{"from": "a", "to": "s", "stream": "pairs", "objective": "kl"}]
    assert run(later, store)["agents"]["s"]["updates"] > 0


def test_what_judges_said_is_shown_by_judge_and_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = mesh(pairs=True)
    judge = {**WRITES, "generated_by": "b", "template": "{{ x.text }}={{ y.text }}={{ prompt }}"}
    names = {"shown": ["0", "1"], "turned": ["1", "0"]}
    fields["streams"] = {
        **{name: one for name, one in fields["streams"].items() if name in ("of_a", "of_s")},
        "shown": {**judge, "reads": {"x": "of_a", "y": "of_s"}},
        "turned": {**judge, "reads": {"x": "of_s", "y": "of_a"}},
        "agreed": {
            "consensus_of": ["of_a", "of_s"], "reads": {name: name for name in names}, "pairs": True,
            "rule": {"best_of": {"verdict": "[0-9]", "names": names, "least": 1}}, "history": "all",
        },
    }  # fmt: skip
    fields["flows"] = [{"from": "a", "to": "s", "stream": "agreed", "objective": "kl"}]
    store = tmp_path / "store"
    key = run(fields, store, tmp_path / "out")["store"]["histories"]["agreed"]["entries"]["agreed"]
    named, lost = set(), set()
    for line in lines(tmp_path / "out", "agreed"):
        shown = show(key[:12], store, capsys, "--sample", str(line["sample"]))
        for one in line["consensus"]["verdicts"]:
            (named if one["text"] is not None else lost).add(one["judge"])
            assert f"{one['judge']}: {one['verdict'] or 'no verdict'}" in " ".join(shown.split())
            assert one["text"] is not None or "naming no text" in " ".join(shown.split())
        assert all(len(row) <= 80 for row in shown.splitlines())
    assert named and lost


@pytest.mark.parametrize(("keep", "rounds"), [("last", [2]), ({"k": 1}, [2])])
def test_as_much_is_kept_as_is_asked_for(keep: Any, rounds: list[int], tmp_path: Path) -> None:
    summary = run(mesh(keep), tmp_path)
    key = summary["store"]["histories"]["agreed"]["entries"]["agreed"]
    assert len(written(entry=key, store=str(tmp_path), round=2, dropped=True).x)
    with pytest.raises(MeshError, match=r"has no round 1") as caught:
        written(entry=key, store=str(tmp_path), round=1)
    assert caught.value.where == "data.dataset.written.round" and caught.value.instead == "one of 2"


def versions(store: Path, key: str) -> list[list[tuple[str, str]]]:
    """By round, the prompts and what was agreed on."""
    tables = [written(entry=key, round=round, store=str(store)) for round in (1, 2)]
    return [[(str(one.prompt), one.text) for one in table.x] for table in tables]


@pytest.mark.parametrize("kept", [False, True], ids=["before a round is kept", "after"])
def test_broken_off_and_resumed_it_has_the_same_rounds(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(mesh(), tmp_path / "whole")
    key = whole["store"]["histories"]["agreed"]["entries"]["agreed"]
    inner, rounds = InlineBackend.call, 0

    def mortal(self: Any, host: str, method: str, *args: Any, **options: Any) -> Any:
        nonlocal rounds
        rounds += method == "remember_texts"
        last = method == "remember_texts" and rounds == 2
        found = None if last and not kept else inner(self, host, method, *args, **options)
        if last:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(InlineBackend, "call", mortal)
        with pytest.raises(KeyboardInterrupt):
            run({**mesh(), "placement": "spread"}, tmp_path / "broken", tmp_path / "out", checkpoint_seconds=0)
    (folder,) = (tmp_path / "out").glob("*/*")
    again = run({**mesh(), "placement": "spread"}, tmp_path / "broken", resume=folder)
    assert again["store"]["histories"] == whole["store"]["histories"] and said(again) == said(whole)
    assert versions(tmp_path / "broken", key) == versions(tmp_path / "whole", key)


def debate(teach: str) -> dict[str, Any]:
    """The same three agents debate anew each epoch, and what that comes to is kept."""
    fields, sampling = mesh(), WRITES["sampling"]
    rule = {"vote": {"pattern": "[0-9]", "ties": "first"}}
    how = {"debaters": ["a", "b", "s"], "student": "s", "template": "{{ others }}={{ prompt }}", "between": ";"}
    fields["connect"] = [{"debate": {**how, "rule": rule, "teach": teach, "sampling": sampling, "history": "all"}}]
    return {key: value for key, value in fields.items() if key not in ("streams", "flows")}


def test_a_debate_keeps_what_is_learned() -> None:
    for teach, others in (("winner", set()), ("transcript", {"debate.answer"})):
        streams = draw(parse(debate(teach)), registry()).streams
        assert {name for name, one in streams.items() if one.consensus_of} == {"debate", *others}
        assert {name for name, one in streams.items() if one.history} == {"debate"}


@pytest.mark.ray
def test_a_debate_on_ray_keeps_the_same_rounds(tmp_path: Path, ray_session: Session) -> None:
    here = run(debate("winner"), tmp_path / "inline")
    spread = parse({**debate("winner"), "placement": "spread"})
    there = run_once(Request(spread, store=str(tmp_path / "ray")), session=ray_session)[0]
    assert said(there) == said(here) and there["store"]["histories"] == here["store"]["histories"]
    known = here["store"]["histories"]["debate"]
    key = known["entries"]["debate"]
    found = versions(tmp_path / "ray", key)
    assert known["rounds"] == 2 and found == versions(tmp_path / "inline", key) and all(found) and found[0] != found[1]


STREAM = mesh()["streams"]["agreed"]
REFUSED = [
    ({**mesh(), "streams": {**mesh()["streams"], "of_a": {**mesh()["streams"]["of_a"], "history": "all"}}},
     "streams.of_a.history", "no rule makes it"),
    ({**mesh(), "streams": {name: one if "rule" in one else {**one, "refresh": "2 steps"}
                            for name, one in mesh()["streams"].items()}}, "streams.agreed.history", "are no rounds"),
    ({**mesh(), "streams": {**mesh()["streams"], "again": STREAM}}, "streams.again.history", "nobody learns it"),
    (mesh({"ema": 0.5}), "streams.agreed.history", "ema"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_has_no_rounds_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where.startswith(where) and what in str(caught.value) and caught.value.instead


DATA = [
    ({}, "data.dataset.written", "`path`, a file"),
    ({"path": "x.jsonl", "round": 2}, "data.dataset.written", "a file has neither"),
    ({"entry": "0123456789"}, "data.dataset.written.entry", "0123456789"),
]


@pytest.mark.parametrize(("settings", "where", "what"), DATA, ids=[what for *_, what in DATA])
def test_data_that_are_not_there_are_refused(settings: dict[str, Any], where: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    fields = {**mesh(None), "data": {"dataset": {"written": settings}}}
    with pytest.raises(MeshError) as caught:
        run(fields, tmp_path)
    assert caught.value.where == where and what in str(caught.value)
