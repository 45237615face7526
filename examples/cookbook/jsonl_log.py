"""An observer: what a run tells, a line of JSON each, in a file of its folder.

No paper: JSON Lines is a convention. For MLflow, Weights & Biases and TensorBoard see `plugins/kdmesh-mlflow`,
`plugins/kdmesh-wandb` and `plugins/kdmesh-tensorboard`, which are written with `kdmesh.trackers`.

An observer offers nothing, and no mesh has to name it: it watches every run where it is installed. It keeps nothing
between calls, so that several runs at a time do not meet, and a run that is killed and resumed goes on in the same
file. A run's own `events.jsonl` has more; this is how to send the same elsewhere.
"""

from __future__ import annotations

import json
from typing import Any

import kdmesh

NAME = "told.jsonl"


def _tell(run: Any, what: str, **about: Any) -> None:
    """Append a line; nothing where the run writes no files."""
    if run.folder is None:
        return
    line = json.dumps({"what": what, **about}, ensure_ascii=False)
    with open(run.folder / NAME, "a+b") as file:
        if file.tell() and not _ends_whole(file):
            line = f"\n{line}"  # what was killed while it wrote has left half a line
        file.write(f"{line}\n".encode())


def _ends_whole(file: Any) -> bool:
    """Whether a file that is not empty ends with a line's end."""
    file.seek(-1, 2)
    return file.read(1) == b"\n"


@kdmesh.hookimpl
def kdmesh_run_started(run: Any) -> None:
    """A line about the run itself."""
    _tell(run, "started", seed=run.seed, backend=run.backend, roles=run.roles, resumed=run.resumed)


@kdmesh.hookimpl
def kdmesh_trained(run: Any, stage: str, step: int, losses: dict[str, float | None]) -> None:
    """Mean losses by agent since the last such line."""
    _tell(run, "trained", stage=stage, step=step, losses=losses)


@kdmesh.hookimpl
def kdmesh_agent_evaluated(run: Any, agent: str, stream: str, metrics: dict[str, float | None]) -> None:
    """Figures of an agent."""
    _tell(run, "evaluated", agent=agent, stream=stream, metrics=metrics)


@kdmesh.hookimpl
def kdmesh_run_finished(run: Any, summary: dict[str, Any]) -> None:
    """The weights that came out, by their sha256."""
    _tell(run, "finished", weights={name: about["weights_sha256"] for name, about in summary["agents"].items()})


@kdmesh.hookimpl
def kdmesh_run_failed(run: Any, error: str, interrupted: bool) -> None:
    """Why there is no more."""
    _tell(run, "failed", error=error, interrupted=interrupted)
