"""Events become hook calls: what plugins observe of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.plugins import registry

if TYPE_CHECKING:
    from kdmesh.engine.events import Listener
    from kdmesh.engine.run import Run


def observers(run: Run) -> Listener:
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
