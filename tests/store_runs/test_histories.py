"""What consensus nodes said, kept by round as a file asks: inline, on Ray, broken off and resumed, and by two runs."""

from __future__ import annotations

import json
import os
import pkgutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import said, table

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.cli import main
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunFailed
from kdmesh.report.plan_text import plan_text
from kdmesh.spec.read import parse
from kdmesh.store import EntryKey, Fingerprint, Store
from kdmesh.store.history import History, Retention
from kdmesh.streams.contents import digests

ROUNDS = 3


def mesh(history: Any = "all", into: Any = None, rounds: int = ROUNDS, **more: Any) -> kdmesh.Mesh:
    """Two peers of unlike seeds who read the mean of both in rounds."""
    train = {"epochs": 1, "batch_size": 32, "forward_size": 32, "optimizer": {"sgd": {"lr": 0.1}}}
    made = kdmesh.Mesh(data=table(), train=train, **more)
    for name, hidden in (("a", 12), ("b", 16)):
        made.agent(name, {"mlp": {"hidden": [hidden]}})
    made.flow("labels", ["a", "b"], objective="ce", lesson="own")
    made.consensus("c", "mean", history=history)
    made.flow(["a", "b"], "c", **{"refresh": "round", **(into or {})})
    made.flow("c", ["a", "b"], objective="kl", lesson="together")
    lines = [{"lesson": "own", "epochs": 1}, {"publish": ["a", "b"]}, {"lesson": "together", "epochs": 1}]
    made._fields["program"] = [{"of": ["a", "b"], "repeat": rounds, "do": lines}]
    return made


def run(made: kdmesh.Mesh, store: Any, **more: Any) -> dict[str, Any]:
    return made.run(backend="inline", store=str(store), **more).summary


def histories(store: Any) -> dict[str, History]:
    """By who spoke."""
    opened, found = Store.open(store), {}
    for one in opened.entries():
        assert one.key is not None
        if "history" in one.key.producer:
            key = EntryKey(one.key.producer, one.key.signal)
            found[one.key.producer["history"]] = History(opened.entry(key), Retention.of(one.key.signal["retention"]))
    return found


def values(of: History, round: int | None = None) -> Any:
    """Of every sample of the table, what is known of those of a round."""
    found, value, _ = of.read(digests(table().x), Fingerprint.here(torch.device("cpu"), 1), round)
    return found, value


def test_every_round_is_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without, summary = run(mesh(), "off"), run(mesh({"keep": "all", "sources": True}), tmp_path)
    assert said(without) == said(summary)
    assert any("history of c is not kept" in note for note in without["notes"])
    told = summary["store"]["histories"]["c"]
    assert told["rounds"] == ROUNDS and told["entries"].keys() == {"a", "b", "c"}
    found = histories(tmp_path)
    assert {name: one.rounds() for name, one in found.items()} == {who: [1, 2, 3] for who in "abc"}
    for round in (1, 2, 3):
        (hit, mean), (_, a), (_, b) = (values(found[name], round) for name in "cab")
        assert int(hit.sum()) == 90 and torch.equal(mean, torch.stack([a.softmax(-1), b.softmax(-1)]).mean(0))
    assert not torch.equal(values(found["c"], 1)[1], values(found["c"], 3)[1])
    capsys.readouterr()
    assert main(["store", "ls", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("history of") == 3
    key = told["entries"]["c"][:12]
    assert main(["store", "show", key, "--sample", "17", "--store", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["round"], row["who"]) for row in rows] == [
        (round, f"mesh/{who}") for round in (1, 2, 3) for who in "abc"
    ]


@pytest.mark.parametrize(("keep", "rounds"), [("last", [3]), ({"k": 2}, [2, 3]), ({"ema": 0.5}, [3])])
def test_retention(keep: Any, rounds: list[int], tmp_path: Path) -> None:
    run(mesh(), tmp_path / "all")
    run(mesh(keep), tmp_path / "some")
    every, some = histories(tmp_path / "all")["c"], histories(tmp_path / "some")["c"]
    assert some.rounds() == rounds
    one, two, three = (values(every, round)[1] for round in (1, 2, 3))
    expected = three if keep != {"ema": 0.5} else torch.lerp(three, torch.lerp(two, one, 0.5), 0.5)
    assert torch.equal(values(some)[1], expected)


def test_a_run_that_breaks_off_adds_no_round_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An average would show it: broken off after each of its calls in turn, about, and resumed."""
    run(mesh({"ema": 0.5}), tmp_path / "whole")
    expected = values(histories(tmp_path / "whole")["c"])[1]
    call, calls, last = InlineBackend.call, 0, 0

    def mortal(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            raise RuntimeError("broken off")
        return call(self, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", mortal)
    run(mesh({"ema": 0.5}), "off")
    for at in range(8, calls, max(1, calls // 9)):
        store, out = tmp_path / f"store{at}", tmp_path / f"out{at}"
        calls, last = 0, at
        with pytest.raises(RunFailed, match="broken off"):
            run(mesh({"ema": 0.5}), store, out=out, checkpoint_seconds=0)
        last = 0
        (folder,) = (out / "mesh").iterdir()
        again = mesh({"ema": 0.5}).run(resume=folder).summary
        assert torch.equal(values(histories(store)["c"])[1], expected)
        assert again["store"]["histories"]["c"]["rounds"] == ROUNDS
        calls = 0


def apart(work: Callable[[], Any]) -> int:
    """Do something in a process of its own; return its number."""
    if not (child := os.fork()):
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.mark.parametrize("keep", ["all", "last", {"k": 2}, {"ema": 0.5}])
def test_two_processes_at_once_write_the_history_of_one(keep: Any, tmp_path: Path) -> None:
    """Each adds rounds, and deletes those that are not kept, while the other does."""
    rounds, both = 5, tmp_path / "both"
    run(mesh(keep, rounds=rounds), tmp_path / "one")
    children = [apart(lambda: run(mesh(keep, rounds=rounds), both)) for _ in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    one, other = histories(tmp_path / "one")["c"], histories(both)["c"]
    assert one.rounds() == other.rounds()
    for number in one.rounds():
        (found, expected), (there, value) = values(one, number), values(other, number)
        assert int(found.sum()) == 90 and torch.equal(there, found) and torch.equal(value, expected)
    assert [*Store.open(both).verify()] == []


MOMENTS = {
    "before a round": ("kdmesh.store.history.write_signal", False),
    "a round is written, and the last one is there": ("kdmesh.store.history.write_signal", True),
    "the last one is deleted": ("kdmesh.store.entry.Entry.drop", True),
}


@pytest.mark.parametrize("round", [1, 2, 3])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_between_rounds_and_resumed_it_is_the_history_of_a_whole_run(
    moment: str, round: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mesh({"ema": 0.5}), tmp_path / "whole")
    name, after = MOMENTS[moment]
    real, calls = pkgutil.resolve_name(name), 0

    def deadly(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        done = real(*args, **options) if after or calls != round else None
        if calls == round:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    store, out = tmp_path / "store", tmp_path / "out"

    def doomed() -> None:
        monkeypatch.setattr(name, deadly)
        run(mesh({"ema": 0.5}), store, out=out, checkpoint_seconds=0)

    _, status = os.waitpid(apart(doomed), 0)
    if "deleted" in moment and round == 3:  # of three rounds two are
        assert status == 0
        return
    assert os.WIFSIGNALED(status)
    (folder,) = (out / "mesh").iterdir()
    again = mesh({"ema": 0.5}).run(resume=folder).summary
    assert again["store"]["histories"]["c"]["rounds"] == ROUNDS
    expected, found = (histories(tmp_path / one)["c"] for one in ("whole", "store"))
    assert found.rounds() == expected.rounds() == [ROUNDS]
    assert torch.equal(values(found)[1], values(expected)[1]) and [*Store.open(store).verify()] == []


def test_the_same_run_once_more_is_the_same_history(tmp_path: Path) -> None:
    summaries = [run(mesh({"ema": 0.5}), tmp_path)["store"]["histories"] for _ in range(2)]
    files = {one.name for one in tmp_path.rglob("*.safetensors")}
    assert summaries[0] == summaries[1] and len(files) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"rounds": 2}, {"history": "last"}])
def test_another_run_has_a_history_of_its_own(change: dict[str, Any], tmp_path: Path) -> None:
    run(mesh(), tmp_path)
    run(mesh(**change), tmp_path)
    opened = Store.open(tmp_path)
    assert sum("history" in one.key.producer for one in opened.entries() if one.key) == 2


@pytest.mark.parametrize(("refresh", "rounds"), [("once", 1), ("epoch", 2), ("2 steps", 3)])
def test_other_periods_are_rounds_too(refresh: str, rounds: int, tmp_path: Path) -> None:
    made = mesh("all", {"refresh": refresh})
    del made._fields["program"]
    for flow in made._fields["flows"]:
        flow.pop("lesson", None)
    made._fields["train"]["epochs"] = 2
    if refresh == "once":
        made.agent("s", {"mlp": {"hidden": [12]}})
        made._fields["flows"][-1]["to"] = ["s"]
    summary = run(made, tmp_path)
    assert summary["store"]["histories"]["c"]["rounds"] == rounds
    assert histories(tmp_path)["c"].rounds() == [*range(1, rounds + 1)]


@pytest.mark.ray
def test_a_history_on_ray(tmp_path: Path, ray_session: Any) -> None:
    fields = {**mesh({"keep": "all", "sources": True})._fields, "data": "digits", "placement": "spread"}
    fields["streams"] = {"few": {"of": "train", "size": 100}}
    for flow in fields["flows"]:
        flow["stream"] = "few"
    spec = parse(fields)
    run_once(Request(spec, "inline", store=str(tmp_path / "inline")))
    run_once(Request(spec, store=str(tmp_path / "ray")), session=ray_session)
    inline, ray = (
        {name.name: name.read_bytes() for name in (tmp_path / one).rglob("*.safetensors")} for one in ("inline", "ray")
    )
    assert inline == ray and len(inline) == 9


@pytest.mark.parametrize(
    ("into", "stream", "why"),
    [
        ({"refresh": "step"}, None, "answers each batch anew"),
        ({"refresh": "epoch", "stale": "recorded"}, None, "answers each batch anew"),
        ({"stream": "few"}, {"of": "train", "size": 30, "private": True}, "private"),
    ],
)
def test_what_has_no_rounds_has_no_history(into: dict[str, Any], stream: Any, why: str) -> None:
    made = mesh("all", into, streams={} if stream is None else {"few": stream})
    if "refresh" in into:
        del made._fields["program"]
        for flow in made._fields["flows"]:
            flow.pop("lesson", None)
    else:
        made._fields["placement"] = "together"
    with pytest.raises(MeshError, match=why):
        made.plan()


@pytest.mark.parametrize("keep", ["some", {"k": 0}, {"ema": 1.0}, {}, {"k": 1, "ema": 0.5}])
def test_what_says_no_retention(keep: Any) -> None:
    with pytest.raises(MeshError, match=r"consensus\.c\.history"):
        mesh(keep).plan()


def test_the_plan_shows_it() -> None:
    assert "ema 0.5, of sources too" in plan_text(mesh({"keep": {"ema": 0.5}, "sources": True}).plan())
