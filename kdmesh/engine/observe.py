"""Events become hook calls: what plugins observe of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_info import RunInfo
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from kdmesh.engine.context import RunContext
    from kdmesh.engine.events import Listener


def info(run: RunContext) -> RunInfo:
    """What plugins are told of a run."""
    plan = run.plan
    return RunInfo(plan.spec, run.seed, run.backend.name, run.folder, plan.hosts, run.roles, plan)


def observers(run: RunInfo) -> Listener:
    """A listener that tells plugins of a run; its start and its end are told by the launch."""
    observe = registry().observe

    def listen(event: dict[str, Any]) -> None:
        match event["event"]:
            case "stage_started":
                observe("kdmesh_stage_started", run=run, stage=event["stage"])
            case "host_lost":
                observe("kdmesh_host_lost", run=run, host=event["host"], error=event["error"])
            case "round_finished":
                about = {name: event[name] for name in ("stage", "round", "metrics")}
                observe("kdmesh_round_finished", run=run, **about)
            case "evaluated":
                about = {name: event[name] for name in ("agent", "stream", "metrics")}
                observe("kdmesh_agent_evaluated", run=run, **about)

    return listen
