"""What this package observes, by kdmesh's hooks. Reading it imports neither torch nor tensorboard."""

from __future__ import annotations

from typing import Any

import kdmesh
from kdmesh.sections import ReportedRun, Section, Table, Text
from kdmesh.trackers import Observer


class Scalars(Observer):
    """Where the logs are stands on a run's page."""

    @kdmesh.hookimpl
    def kdmesh_report(self, run: ReportedRun) -> list[Section] | None:
        """Say on the run's page where its logs are, and how to see them; nothing where none was written."""
        rows: list[list[Any]] = [
            [seed, path.relative_to(run.folder).as_posix(), path.stat().st_size]
            for seed, folder in run.seeds.items()
            for path in sorted((folder / "tensorboard").glob("*tfevents*"))
            if path.is_file()
        ]
        if not rows:
            return None
        how = f"Scalars of every evaluation, round and stage. To see them: tensorboard --logdir {run.folder}"
        table = Table(title="Event files", heads=["seed", "file", "bytes"], rows=rows[:1000])
        return [Section(title="TensorBoard", blocks=[Text(words=how), table])]


observer = Scalars("kdmesh_tensorboard.log:Log")
