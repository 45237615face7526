"""Events become hook calls: what plugins observe of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.events import Evaluated, HostLost, RoundFinished, StageResumed, StageStarted
from kdmesh.contracts.run_info import RunInfo
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from kdmesh.contracts.events import Event
    from kdmesh.engine.context import RunContext
    from kdmesh.engine.events import Listener


def info(run: RunContext) -> RunInfo:
    """What plugins are told of a run."""
    plan = run.plan
    return RunInfo(plan.spec, run.seed, run.backend.name, run.folder, plan.hosts, run.roles, plan)


def observers(run: RunInfo) -> Listener:
    """A listener that tells plugins of a run; its start and its end are told by the launch."""
    observe = registry().observe

    def listen(event: Event) -> None:
        match event:
            case StageStarted() if not isinstance(event, StageResumed):
                observe("kdmesh_stage_started", run=run, stage=event.stage)
            case HostLost():
                observe("kdmesh_host_lost", run=run, host=event.host, error=event.error)
            case RoundFinished():
                observe("kdmesh_round_finished", run=run, stage=event.stage, round=event.round, metrics=event.metrics)
            case Evaluated():
                about = {"agent": event.agent, "stream": event.stream, "metrics": event.metrics}
                observe("kdmesh_agent_evaluated", run=run, **about)

    return listen
