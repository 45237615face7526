"""What this package observes, by kdmesh's hooks. Reading it imports neither torch nor mlflow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import kdmesh

if TYPE_CHECKING:
    from kdmesh_mlflow.log import Log

_logs: WeakKeyDictionary[Any, Log] = WeakKeyDictionary()  # by run; one that is not logged has none


@kdmesh.hookimpl
def kdmesh_run_started(run: Any) -> None:
    """Begin a run of MLflow, or go on with the one of before, where MLFLOW_TRACKING_URI says where they are kept."""
    if run.folder is not None and os.environ.get("MLFLOW_TRACKING_URI"):
        from kdmesh_mlflow.log import Log

        _logs[run] = Log(run)


@kdmesh.hookimpl
def kdmesh_trained(
    run: Any, step: int, losses: dict[str, float | None], flows: dict[str, dict[str, float | None]]
) -> None:
    """Log the mean losses since the last such call, of each agent and of each flow into it."""
    if log := _logs.get(run):
        log.trained(step, losses, flows)


@kdmesh.hookimpl
def kdmesh_agent_evaluated(
    run: Any, agent: str, stream: str, metrics: dict[str, float | None], step: int | None
) -> None:
    """Log what was measured; at the end of the run, at the agent's last step."""
    if log := _logs.get(run):
        log.measured(agent, stream, metrics, step)


@kdmesh.hookimpl
def kdmesh_round_finished(run: Any, stage: str, round: int, metrics: dict[str, Any]) -> None:
    """Log what was measured in the round."""
    if log := _logs.get(run):
        log.write({f"rounds/{stage}": metrics}, round)


@kdmesh.hookimpl
def kdmesh_run_finished(run: Any, summary: dict[str, Any]) -> None:
    """Log the final figures and the run's files, and close it."""
    if log := _logs.pop(run, None):
        log.summarise(summary)
        log.close("FINISHED")


@kdmesh.hookimpl
def kdmesh_run_failed(run: Any, error: str, interrupted: bool) -> None:
    """Say why it ended: KILLED where somebody interrupted it."""
    if log := _logs.pop(run, None):
        log.failed(error)
        log.close("KILLED" if interrupted else "FAILED")


@kdmesh.hookimpl
def kdmesh_report(run: Any) -> list[Any] | None:
    """Say on the run's page where it is in MLflow; nothing where it was not logged."""
    from kdmesh.sections import Section, Table

    from kdmesh_mlflow.kept import read

    found = {seed: about for seed, folder in run.seeds.items() if (about := read(folder))}
    if not found:
        return None
    rows: list[list[Any]] = [[seed, about["run_id"], about["experiment"]] for seed, about in found.items()]
    return [
        Section(title="MLflow", blocks=[Table(title="Runs", heads=["seed", "run", "experiment"], rows=rows[:1000])])
    ]
