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


@kdmesh.hookimpl
def kdmesh_report(run: Any) -> list[Any] | None:
    """Say on the run's page where its logs are, and how to see them; nothing where none was written."""
    from kdmesh.sections import Section, Table, Text

    found = {
        seed: [path for path in sorted((folder / "tensorboard").glob("*tfevents*")) if path.is_file()]
        for seed, folder in run.seeds.items()
    }
    rows: list[list[Any]] = [
        [seed, path.relative_to(run.folder).as_posix(), path.stat().st_size]
        for seed, paths in found.items()
        for path in paths
    ]
    if not rows:
        return None
    how = f"Scalars of every evaluation, round and stage. To see them: tensorboard --logdir {run.folder}"
    table = Table(title="Event files", heads=["seed", "file", "bytes"], rows=rows[:1000])
    return [Section(title="TensorBoard", blocks=[Text(words=how), table])]
