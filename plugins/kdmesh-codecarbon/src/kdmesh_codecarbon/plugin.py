"""What this package observes, by kdmesh's hooks. Reading it imports neither torch nor codecarbon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kdmesh

if TYPE_CHECKING:
    from kdmesh_codecarbon.meter import Meter

_meters: dict[Any, Meter] = {}  # by run; one without a folder has none


@kdmesh.hookimpl
def kdmesh_run_started(run: Any) -> None:
    """Begin to measure, if the run has a folder to write to."""
    while _meters:  # of runs that failed: codecarbon would go on sampling for them
        _meters.popitem()[1].stop()
    if run.folder is not None:
        from kdmesh_codecarbon.meter import Meter

        _meters[run] = Meter()


@kdmesh.hookimpl
def kdmesh_run_finished(run: Any, summary: dict[str, Any]) -> None:
    """Write what was measured."""
    if meter := _meters.pop(run, None):
        meter.write(run.folder)
