"""What this package observes, by kdmesh's hooks. Reading it imports neither torch nor tensorboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import kdmesh

if TYPE_CHECKING:
    from kdmesh_tensorboard.log import Log

_logs: WeakKeyDictionary[Any, Log] = WeakKeyDictionary()  # by run; one without a folder has none


@kdmesh.hookimpl
def kdmesh_run_started(run: Any) -> None:
    """Open the log in the run's folder, if it has one."""
    if run.folder is not None:
        from kdmesh_tensorboard.log import Log

        _logs[run] = Log(run.folder / "tensorboard")


@kdmesh.hookimpl
def kdmesh_stage_started(run: Any, stage: str) -> None:
    """Write when it began."""
    if log := _logs.get(run):
        log.began(stage)


@kdmesh.hookimpl
def kdmesh_round_finished(run: Any, stage: str, round: int, metrics: dict[str, Any]) -> None:
    """Write what was measured in the round."""
    if log := _logs.get(run):
        log.write({f"rounds/{stage}": metrics}, round)


@kdmesh.hookimpl
def kdmesh_agent_evaluated(run: Any, agent: str, stream: str, metrics: dict[str, float]) -> None:
    """Write one point of each of the agent's curves on this stream."""
    if log := _logs.get(run):
        log.measured(agent, stream, metrics)


@kdmesh.hookimpl
def kdmesh_run_finished(run: Any, summary: dict[str, Any]) -> None:
    """Write how good each consensus was, and close the log."""
    if log := _logs.pop(run, None):
        for name, about in summary["consensus"].items():
            for stream, metrics in about["metrics"].items():
                log.measured(name, stream, metrics)
        log.close()
