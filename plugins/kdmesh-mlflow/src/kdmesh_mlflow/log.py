"""One run in MLflow, by its client, which several runs of a process share no state through. It imports no torch."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.trackers import Tracker, leaves

from kdmesh_mlflow.plugin import IDENTITY

if TYPE_CHECKING:
    from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow is imported: it tells nobody that it is used
try:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
except ImportError as error:
    raise MeshError(
        f"there is no MLflow to log with ({error})",
        where="kdmesh-mlflow",
        instead="pip install mlflow-skinny, or set KDMESH_DISABLE_PLUGINS=kdmesh-mlflow",
    ) from None

FILES = ("summary.json", "resolved.yaml")  # of the run's folder, as artifacts; its page is made later
APART = ("flows", "consensus", "program", "connect")  # long lists of the mesh, which resolved.yaml has
MOST = 500  # params of a run
BATCH = 100  # of them that MLflow takes at once
LONGEST = 250  # letters of a name in MLflow


class Log(Tracker):
    """The metrics of one run. What was logged is in the store when a method returns.

    Names are those of :class:`kdmesh.trackers.Tracker`, as MLflow takes them; final figures are at step 0.
    """

    def __init__(self, run: Any) -> None:
        super().__init__(run)
        self._client = MlflowClient()
        self._keys: dict[str, str] = {}  # what each name of MLflow stands for
        self.id = self._continued(run.folder) if run.resumed else ""
        if not self.id:
            self._begin(run)

    def _continued(self, folder: Path) -> str:
        """The run of MLflow that a folder has begun, which goes on; "" where it is gone."""
        if (known := IDENTITY.read(folder)) is None:
            return ""
        try:
            if self._client.get_run(known[0]).info.lifecycle_stage != "active":
                return ""
            self._client.update_run(known[0], status="RUNNING")
        except MlflowException:
            return ""
        return known[0]

    def _begin(self, run: Any) -> None:
        """Make a run in the experiment, with the mesh as its params."""
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.mesh.name
        tags = {_tag(name): str(value) for name, value in self.about.items()}
        made = self._client.create_run(self._experiment(experiment), run_name=run.part, tags=tags)
        self.id = made.info.run_id
        IDENTITY.write(run.folder, self.id, experiment)
        mesh = {name: value for name, value in run.mesh.dump().items() if name not in APART}
        params = [Param(self._key(name), str(value)[:6000]) for name, value in leaves(mesh)]
        for start in range(0, min(len(params), MOST), BATCH):
            self._client.log_batch(self.id, params=params[start : min(start + BATCH, MOST)])
        if len(params) > MOST:
            self._client.set_tag(self.id, _tag("params_left_out"), str(len(params) - MOST))

    def _experiment(self, name: str) -> str:
        """The id of an experiment, made where it is not there; another process may make it at the same time."""
        if (found := self._client.get_experiment_by_name(name)) is not None:
            return found.experiment_id
        try:
            return self._client.create_experiment(name)
        except MlflowException:
            if (found := self._client.get_experiment_by_name(name)) is None:
                raise
            return found.experiment_id

    def log(self, numbers: dict[str, float], at: int, axis: str = "step") -> None:
        """Log numbers by name."""
        now = int(time.time() * 1000)
        rows = [Metric(self._key(name), float(value), now, at) for name, value in numbers.items()]
        for start in range(0, len(rows), 10 * BATCH):
            self._client.log_batch(self.id, metrics=rows[start : start + 10 * BATCH])

    def summarise(self, numbers: dict[str, float], summary: Mapping[str, Any]) -> None:
        """Log final figures and the files of the run."""
        self.log(numbers, 0)
        tags = {name: summary[name] for name in ("metric", "best_teacher")} | {"notes": "\n".join(summary["notes"])}
        rows = [RunTag(_tag(name), str(value)[:5000]) for name, value in tags.items() if value]
        self._client.log_batch(self.id, tags=rows)
        for file in FILES:
            if (self.run.folder / file).is_file():
                self._client.log_artifact(self.id, str(self.run.folder / file))

    def close(self, end: str, error: str) -> None:
        """End the run, KILLED where somebody interrupted it."""
        if error:
            self._client.set_tag(self.id, _tag("error"), error[:5000])
        self._client.set_terminated(self.id, {"interrupted": "KILLED"}.get(end, end.upper()))

    def _key(self, name: str) -> str:
        """A name as MLflow takes it: letters of any script, digits and ``_-. /``; different ones stay different."""
        clean = re.sub(r"[^\w\-. /]", "_", name.replace("->", "to"))
        clean = "/".join(part if part.strip(".") else "_" for part in clean.split("/"))[:LONGEST]
        key, number = clean, 1
        while self._keys.setdefault(key, name) != name:
            number += 1
            key = f"{clean[: LONGEST - 6]}_{number}"
        return key


def _tag(name: str) -> str:
    """The name of a tag of ours."""
    return f"kdmesh.{name}"
