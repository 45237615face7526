"""Events become hook calls: what plugins observe of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.plugins import registry

if TYPE_CHECKING:
    from kdmesh.engine.events import Listener
    from kdmesh.engine.run import Run


def observers(run: Run) -> Listener:
    """A listener that tells plugins of stages, rounds and evaluations; the start and the end are told by the launch."""
    hook = registry().manager.hook

    def listen(event: dict[str, Any]) -> None:
        match event["event"]:
            case "stage_started":
                hook.kdmesh_stage_started(run=run, stage=event["stage"])
            case "round_finished":
                hook.kdmesh_round_finished(
                    run=run, stage=event["stage"], round=event["round"], metrics=event["metrics"]
                )
            case "evaluated":
                hook.kdmesh_agent_evaluated(
                    run=run, agent=event["agent"], stream=event["stream"], metrics=event["metrics"]
                )

    return listen
