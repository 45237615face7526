"""Observer hooks hear of a run, in order, until one fails; what they change of what they are given is their own."""

from __future__ import annotations

import json

import pytest

from kdmesh.contracts.events import Trained
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import RunFailed
from kdmesh.hookspecs import hookimpl
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.testing.observers import TAUGHT, Told, run


class Notes:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def kdmesh_run_started(self, run):
        self.heard.append(f"run of {run.mesh.name}")

    @hookimpl
    def kdmesh_stage_started(self, stage):
        self.heard.append(f"stage {stage}")

    @hookimpl
    def kdmesh_round_finished(self, round, metrics):
        self.heard.append(f"round {round}: {sorted(metrics)}")

    @hookimpl
    def kdmesh_agent_evaluated(self, agent, stream, metrics):
        self.heard.append(f"{agent} on {stream}: {sorted(metrics)}")

    @hookimpl
    def kdmesh_run_finished(self, summary):
        self.heard.append(f"{sorted(summary['agents'])}")


def test_plugins_observe_a_run():
    notes = Notes()
    manager = registry().manager
    manager.register(notes)
    try:
        mesh = {
            "name": "watched",
            "data": {"dataset": "digits", "transfer": 0.2},
            "agents": {"a": {"model": "mlp"}, "b": {"model": "mlp"}},
            "connect": [{"rounds": {"students": ["a", "b"], "rounds": 2}}],
        }
        run_once(Request(parse(mesh), "inline"))
    finally:
        manager.unregister(notes)
    quality = "['accuracy', 'ece', 'loss']"
    measured = "['accuracy', 'agreement', 'churn', 'consensus', 'gain']"
    assert notes.heard == [
        "run of watched",
        "stage a",
        f"round 1: {measured}",
        f"round 2: {measured}",
        *(f"{agent} on {stream}: {quality}" for stream in ("validation", "test") for agent in ("a", "b")),
        "['a', 'b']",
    ]


def hooks(told, but=()):
    """The hooks that were called, in order; those in a row once."""
    names = [hook.removeprefix("kdmesh_") for hook, _ in told.calls if hook not in but]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def test_every_call_says_where_the_run_stands(tmp_path):
    told = Told()
    run(tmp_path, told)
    (info,) = told.runs
    assert (info.seed, info.part, info.resumed, info.backend) == (0, "seed 0", False, "inline")
    log = [json.loads(line) for line in (info.folder / "events.jsonl").read_text().splitlines()]
    stage = ["trained", "agent_evaluated"]
    order = hooks(told)
    assert order[:2] == ["run_started", "stage_started"] and order[-1] == "run_finished"
    assert {*stage, "round_finished", "stage_finished"} == {*order[2:-1]}
    for hook, event in (("kdmesh_trained", "trained"), ("kdmesh_agent_evaluated", "evaluated")):
        found = [about for name, about in told.calls if name == hook]
        assert found == [{key: row[key] for key in found[0]} for row in log if row["event"] == event]
    points = [about for name, about in told.calls if name == "kdmesh_trained"]
    assert {about["round"] for about in points} == {1, 2}
    assert {"labels -> a", "c -> a"} <= {flow for about in points for flow in about["flows"]["a"]}
    measured = [about for name, about in told.calls if name == "kdmesh_agent_evaluated"]
    inside = [about for about in measured if about["epoch"] is not None]
    assert inside[0] | {"metrics": {}, "agent": "a"} == {
        "agent": "a", "stream": "validation", "metrics": {}, "stage": "a", "step": points[0]["step"], "epoch": 1,
        "round": 1,
    }  # fmt: skip
    last = measured[-1]
    assert (last["stream"], last["stage"], last["step"], last["round"]) == ("test", "", None, None)


def test_seeds_and_controls_are_runs_of_their_own(tmp_path):
    told = Told()
    run(tmp_path, told, TAUGHT, seeds=2, controls=True)
    assert [info.part for info in told.runs] == ["seed 0", "seed 0, b alone", "seed 1", "seed 1, b alone"]
    assert len({info.folder for info in told.runs}) == 4
    ends = [hook for hook, _ in told.calls if hook in ("kdmesh_run_started", "kdmesh_run_finished")]
    assert ends == ["kdmesh_run_started", "kdmesh_run_finished"] * 4


def test_a_run_that_fails_is_told_with_its_error(tmp_path):
    told = Told()
    with pytest.raises(RunFailed, match="the loss became"):
        run(tmp_path, told, optimizer={"sgd": {"lr": 1e30}})
    hook, about = told.calls[-1]
    assert hook == "kdmesh_run_failed" and "the loss became" in about["error"] and about["interrupted"] is False
    assert "run_finished" not in hooks(told)


def test_an_interrupted_run_is_told_as_such_and_the_one_that_goes_on_as_resumed(tmp_path):
    told = Told()

    def interrupt(event):
        if isinstance(event, Trained):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, told, listeners=(interrupt,), checkpoint_seconds=0)
    assert told.calls[-1] == ("kdmesh_run_failed", {"error": "KeyboardInterrupt", "interrupted": True})
    run(None, told, resume=told.runs[0].folder)
    assert [info.resumed for info in told.runs] == [False, True] and told.runs[0].folder == told.runs[1].folder
    assert told.calls[-1][0] == "kdmesh_run_finished"


class Meddling(Told):
    """Changes everything that it is given, and says that it did."""

    @hookimpl
    def kdmesh_agent_evaluated(self, run, metrics):
        metrics.clear()
        run.hosts.clear()
        run.roles.clear()
        run.mesh.agents.clear()
        with pytest.warns(DeprecationWarning, match="RunInfo.plan goes away"):
            run.plan.spec.agents.clear()

    @hookimpl
    def kdmesh_run_finished(self, summary):
        summary.clear()


def test_what_an_observer_changes_is_its_own(tmp_path):
    other = Told()
    manager = registry().manager
    expected = run(tmp_path / "without")
    manager.register(other)
    try:
        assert run(tmp_path / "with", Meddling()) == expected
    finally:
        manager.unregister(other)
    assert all(about["metrics"] for hook, about in other.calls if hook == "kdmesh_agent_evaluated")
    assert other.calls[-1][1]["summary"]["agents"].keys() == {"a", "b"}
    (seen,) = other.runs
    assert seen.mesh.agents.keys() == {"a", "b"} and seen.hosts and seen.roles


@pytest.mark.parametrize("error", [ValueError("tired"), SystemExit(3)])
def test_one_that_raises_is_told_no_more_of_this_run_and_a_note_says_so(tmp_path, capsys, error):
    class Tired(Told):
        @hookimpl
        def kdmesh_trained(self, step):
            raise error

    tired, other = Tired(), Told()
    manager = registry().manager
    manager.register(tired, name="kdmesh-tired 1.2: tired")
    manager.register(other)
    try:
        run(tmp_path, tired)
    except AssertionError as said:  # the contract's own helper refuses it
        assert "plugin kdmesh-tired 1.2: tired failed in kdmesh_trained and is told no more of this run" in str(said)
    finally:
        manager.unregister(tired)
        manager.unregister(other)
    assert hooks(tired) == ["run_started", "stage_started"] and hooks(other)[-1] == "run_finished"
    log = (other.runs[0].folder / "events.jsonl").read_text()
    assert log.count("is told no more of this run") == 1
    warned = capsys.readouterr().err
    assert warned.count("plugin kdmesh-tired 1.2: tired failed in kdmesh_trained: ") == 1


def test_the_end_is_told_where_the_log_cannot_be_written(tmp_path, monkeypatch):
    """As on a full disk."""
    from kdmesh.engine.events import Events

    told, write = Told(), Events._write

    def full(log, line):
        if '"round_finished"' in line or log._file is None:
            log._shut()
            raise RunFailed("the log of events could not be written")
        write(log, line)

    monkeypatch.setattr(Events, "_write", full)
    with pytest.raises(RunFailed, match="could not be written"):
        run(tmp_path, told)
    assert told.calls[-1][0] == "kdmesh_run_failed" and "could not be written" in told.calls[-1][1]["error"]
