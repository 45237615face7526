"""`on_loss: drop`: what a run does without the teachers that it lost, and when it restarts them after all."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.contracts.events import Event
from kdmesh.engine import dropping, teach
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import HostLost, MeshError
from kdmesh.graph.fragments import cut
from kdmesh.graph.plan import Plan
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.report import tables
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import parse

Death = tuple[str, str, int]  # an agent whose host dies, at its host's n-th call of this method
TEACHERS = ("a", "b", "c")


class Mortal(InlineBackend):
    """Inline hosts that die, once each, and leave no other trace than Ray's do."""

    def __init__(self, *deaths: Death) -> None:
        super().__init__()
        self.deaths, self.seen = set(deaths), Counter[tuple[str, str]]()
        self.silent: list[str] = []  # what `lost` tells beside the host that was heard of

    def open(self, config: Any, source: Any) -> None:
        self.given = (config, source)
        super().open(config, source)

    def call(self, host: str, method: str, *args: Any, results: int = 1) -> Any:
        self.seen[host, method] += 1
        for death in [death for death in self.deaths if death[0] in self.given[0].plan.hosts[host]]:
            if death[1:] == (method, self.seen[host, method]):
                self.deaths.remove(death)
                raise lost(host)
        return super().call(host, method, *args, results=results)

    def lost(self) -> list[str]:
        return self.silent

    def rebuild(self, plan: Plan) -> None:
        self.open(replace(self.given[0], plan=plan), self.given[1])


def lost(host: str) -> HostLost:
    """A host's loss, as a backend tells of it."""
    error = HostLost(f"{host} was lost: its process ended")
    error.host = host
    return error


def ensemble(teachers: tuple[str, ...] = TEACHERS, labels: bool = True, **policies: str) -> MeshSpec:
    """Teachers that a student hears through their mean, each on a host of its own."""
    model = {"model": {"mlp": {"hidden": [12]}}}
    agents = {name: {**model, "on_loss": policies.get(name, "drop")} for name in teachers}
    fields = {
        "name": "ensemble",
        "data": {"dataset": "digits", "train": 96, "validation": 60, "test": 60},
        "agents": {**agents, "s": {**model, "on_loss": policies.get("s", "restart")}},
        "consensus": {"mean": {"rule": "mean"}},
        "flows": [
            {"from": "labels", "to": [*teachers, *(["s"] if labels else [])], "objective": "ce"},
            {"from": list(teachers), "to": "mean"},
            {"from": "mean", "to": "s", "objective": {"kl": {"temperature": 2}}},
        ],
        "train": {"epochs": 3, "batch_size": 32, "evaluate_every": 1, "optimizer": {"adamw": {"lr": 0.01}}},
        "placement": "spread",
    }
    return parse(fields)


def live(**policies: str) -> MeshSpec:
    """Frozen teachers that are asked at every step, beside labels."""
    fields = ensemble(**policies).dump()
    for name in TEACHERS:
        fields["agents"][name]["update"] = "frozen"
    fields["flows"] = [
        {"from": "labels", "to": "s", "objective": "ce"},
        {"from": list(TEACHERS), "to": "mean", "refresh": "step"},
        {"from": "mean", "to": "s", "objective": "kl"},
        {"from": "a", "to": "s", "objective": "mse", "refresh": "step"},
    ]
    return parse(fields)


class Outcome:
    """What a run on mortal hosts left behind."""

    def __init__(self, spec: MeshSpec, out: Path, *deaths: Death, resume: Path | None = None, **more: Any) -> None:
        self.events: list[Event] = []
        session = Session("inline")
        backend = session._backend = Mortal(*deaths)
        backend.silent = more.get("silent", [])
        where: dict[str, Any] = {"resume": resume} if resume else {"out": out}
        request = Request(spec, "inline", checkpoint_seconds=0, listeners=(self.events.append,), **where)
        self.summary, folder, self.extra = run_once(request, more.get("finish"), session)
        assert folder is not None
        self.root, self.agents = folder.root, self.summary["agents"]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind."""
        return [event for event in self.events if event.kind == kind]

    @property
    def weights(self) -> dict[str, str]:
        """By agents that are left."""
        return {name: agent["weights_sha256"] for name, agent in self.agents.items() if not agent.get("dropped")}


@pytest.fixture(autouse=True)
def chunks_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, and so deaths, come at the same steps however fast the machine is."""
    monkeypatch.setattr(teach, "SECONDS", 1e9)


def test_a_finished_teacher_is_dropped_logged_and_left_out_of_what_is_measured(tmp_path: Path) -> None:
    whole = Outcome(ensemble(), tmp_path / "whole")
    best = whole.summary["best_teacher"]
    run = Outcome(ensemble(), tmp_path / "run", (best, "publish", 1))
    (said,) = run.told("dropped")
    (logged,) = json.loads((run.root / "drops.json").read_text())["drops"]
    assert said.agents == logged["agents"] == [best]
    assert said.at == logged["at"] == {"s": None}, "the student's stage had no checkpoint yet"
    assert run.agents[best]["dropped"] and "test" not in run.agents[best]["metrics"]
    assert run.agents[best]["metrics"]["validation"] == whole.agents[best]["metrics"]["validation"]
    assert {name for name in run.weights if run.weights[name] == whole.weights[name]} == {*TEACHERS} - {best}
    assert run.summary["best_teacher"] in {*TEACHERS} - {best}
    assert {path.name for path in (run.root / "agents").iterdir()} == {*TEACHERS, "s"} - {best}
    printed = io.StringIO()
    tables.show(printed, tables.final_table(run.summary))
    assert "teacher, dropped" in printed.getvalue()


def test_a_teacher_dropped_before_it_said_anything_was_never_there(tmp_path: Path) -> None:
    run = Outcome(ensemble(), tmp_path / "run", ("b", "publish", 1))
    never = Outcome(ensemble(("a", "c")), tmp_path / "never")
    assert run.weights == never.weights


@pytest.mark.parametrize("spec", [ensemble, live])
def test_one_log_and_the_same_checkpoints_give_equal_bits(spec: Any, tmp_path: Path) -> None:
    """Runs that lose `b` while the student trains; one that breaks off later; copies of it that are taken up again."""
    mesh, death, silent = spec(), ("s", "run", 3), [host(spec(), "b")]
    first = Outcome(mesh, tmp_path / "1", death, silent=silent)
    again = Outcome(mesh, tmp_path / "2", death, silent=silent)
    (drop,) = dropping.read(first.root)
    assert drop["agents"] == ["b"] and drop["at"]["s"] is not None
    assert dropping.read(again.root) == [drop]
    assert first.weights == again.weights
    assert first.weights["s"] != Outcome(mesh, tmp_path / "3").weights["s"]

    def gone(run: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Outcome(mesh, tmp_path / "4", death, silent=silent, finish=gone)
    (cut_off,) = (tmp_path / "4").glob("*/*")
    (cut_off / "summary.json").unlink()  # it broke off before it was told of
    for number in "56":
        copy = shutil.copytree(cut_off, tmp_path / number)
        newest = max((copy / "checkpoints" / "s").iterdir())
        shutil.rmtree(newest)  # the finished one: its last steps are made again
        resumed = Outcome(mesh, tmp_path, resume=copy)
        assert resumed.weights == first.weights
        assert resumed.agents["b"]["dropped"] and resumed.agents["b"]["metrics"] == first.agents["b"]["metrics"]
        assert not any("b" in agents for agents in resumed.told("hosts_opening")[0].hosts.values())


def test_what_a_checkpoint_still_holds_of_a_dropped_agent_is_not_heard(tmp_path: Path) -> None:
    """`b` keeps what `a` published while they trained; the student beside `b` hears no more than one elsewhere."""
    fields = ensemble(("a", "b")).dump()
    fields["flows"] += [
        {"from": ["a", "b"], "to": ["a", "b"], "objective": "kl", "refresh": "epoch"},
        {"from": "a", "to": "s", "objective": "mse", "refresh": "once"},
    ]
    beside = parse({**fields, "placement": {"one": ["a"], "two": ["b", "s"]}})
    apart = parse({**fields, "placement": {"one": ["a"], "two": ["b"], "three": ["s"]}})
    death = ("a", "publish", 4)  # at the fourth, the student's stage has begun
    runs = [Outcome(spec, tmp_path / str(len(spec.dump()["placement"])), death) for spec in (beside, apart)]
    assert [run.told("dropped")[0].at for run in runs] == [{"s": None}] * 2
    assert runs[0].weights == runs[1].weights


def test_all_hosts_that_do_not_answer_are_dropped(tmp_path: Path) -> None:
    spec = live()
    run = Outcome(spec, tmp_path / "run", ("b", "run", 2), silent=[host(spec, "c"), host(spec, "b")])
    assert [event.agents for event in run.told("dropped")] == [["b"], ["c"]]
    assert set(run.weights) == {"a", "s"}


@pytest.mark.parametrize(
    ("spec", "death", "why"),
    [
        (ensemble(), ("b", "run", 2), "b still trains"),
        (ensemble(("b",)), ("b", "publish", 1), "mean would have no teacher left"),
        (ensemble(("b",), labels=False), ("b", "publish", 1), "mean would have no teacher left"),
    ],
)
def test_who_is_needed_is_restarted_and_changes_no_bit(spec: MeshSpec, death: Death, why: str, tmp_path: Path) -> None:
    run = Outcome(spec, tmp_path / "run", death)
    beside = ("has no effect in this process", "combines one source only")  # of settings, before anyone dies
    said = [event.text for event in run.told("note") if not any(words in event.text for words in beside)]
    assert said == [f"not dropped but restarted: b; {why}"]
    assert not run.told("dropped") and not (run.root / "drops.json").exists()
    assert run.weights == Outcome(spec, tmp_path / "whole").weights


def test_an_agent_beside_one_that_restarts_is_not_dropped(tmp_path: Path) -> None:
    fields = ensemble().dump()
    spec = parse({**fields, "placement": {"one": ["a", "b"], "two": ["c", "s"]}})
    fields["agents"]["a"]["on_loss"] = "restart"
    mixed = parse({**fields, "placement": {"one": ["a", "b"], "two": ["c", "s"]}})
    assert set(Outcome(spec, tmp_path / "1", ("b", "publish", 1)).weights) == {"c", "s"}
    assert set(Outcome(mixed, tmp_path / "2", ("b", "publish", 1)).weights) == {"a", "b", "c", "s"}


def test_the_last_one_is_not_dropped_and_the_others_are(tmp_path: Path) -> None:
    spec = ensemble(s="drop")
    everyone = list(planned(spec).hosts)
    run = Outcome(spec, tmp_path, ("b", "describe", 1), silent=everyone)
    assert set(run.weights) == {"s"}
    assert run.told("note")[-1].text.endswith("no agent would be left")
    assert run.summary["consensus"]["mean"]["metrics"]["test"] == {}


def test_a_student_left_with_labels_loses_a_flow_and_goes_on() -> None:
    plan = planned(live())
    assert dropping.obstacle(plan, ["a"], plan.stages) == ""
    assert dropping.obstacle(plan, ["a", "b"], plan.stages) == ""
    assert dropping.obstacle(plan.without(["b"]), ["c"], plan.stages) == ""
    assert dropping.obstacle(plan.without(["b", "c"]), ["a"], plan.stages) == "mean would have no teacher left"
    assert dropping.obstacle(plan, ["s"], plan.stages) == "s still trains"
    assert dropping.obstacle(plan, TEACHERS, []) == ""


def test_no_segment_computes_or_waits_for_a_dropped_agent() -> None:
    plan = planned(live()).without(["b"])
    (phase,) = plan.stage("s").phases.values()
    fragments = cut(plan, "s", phase, 0, 4)
    ops = {op.node for fragment in fragments for _, part in fragment.steps for op in part or ()}
    assert ops == {"a", "c", "mean", "s"}
    assert {fragment.host for fragment in fragments} == set(plan.hosts)


def test_a_log_that_is_no_log_is_refused(tmp_path: Path) -> None:
    assert dropping.read(tmp_path) == []
    (tmp_path / "drops.json").write_text('{"drops": [{"agents": "b"}]}')
    with pytest.raises(MeshError, match="what this run dropped cannot be read"):
        dropping.read(tmp_path)


def planned(spec: MeshSpec) -> Plan:
    """Its plan."""
    return make_plan(spec, registry())


def host(spec: MeshSpec, agent: str) -> str:
    """Where an agent lives."""
    return planned(spec).host_of[agent]
