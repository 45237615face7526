"""What this package observes, by kdmesh's hooks. Reading it imports neither torch nor wandb."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import kdmesh

if TYPE_CHECKING:
    from kdmesh_wandb.log import Log

_logs: WeakKeyDictionary[Any, Log] = WeakKeyDictionary()  # by run; one that is not logged has none


@kdmesh.hookimpl
def kdmesh_run_started(run: Any) -> None:
    """Begin a run of W&B where WANDB_PROJECT says of which project it is."""
    if run.folder is not None and os.environ.get("WANDB_PROJECT") and os.environ.get("WANDB_MODE") != "disabled":
        from kdmesh_wandb.log import Log

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
        log.write({f"rounds/{stage}": metrics}, "round", round)


@kdmesh.hookimpl
def kdmesh_run_finished(run: Any, summary: dict[str, Any]) -> None:
    """Put the final figures into the summary, and close it."""
    if log := _logs.pop(run, None):
        log.summarise(summary)
        log.close(0)


@kdmesh.hookimpl
def kdmesh_run_failed(run: Any, error: str, interrupted: bool) -> None:
    """Say why it ended: exit code 130 where somebody interrupted it, else 1."""
    if log := _logs.pop(run, None):
        log.failed(error)
        log.close(130 if interrupted else 1)


@kdmesh.hookimpl
def kdmesh_report(run: Any) -> list[Any] | None:
    """Say on the run's page under which id it is in W&B; nothing where it was not logged."""
    from kdmesh.sections import Section, Table

    from kdmesh_wandb.kept import read

    found = {seed: about for seed, folder in run.seeds.items() if (about := read(folder))}
    if not found:
        return None
    rows: list[list[Any]] = [[seed, about["id"], about["project"]] for seed, about in found.items()]
    table = Table(title="Runs", heads=["seed", "id", "project"], rows=rows[:1000])
    return [Section(title="Weights & Biases", blocks=[table])]
