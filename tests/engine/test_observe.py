"""Observer hooks hear of a run, in order."""

from __future__ import annotations

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.hookspecs import hookimpl
from kdmesh.plugins import registry
from kdmesh.spec.read import parse


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
