"""One run in MLflow, by its client, which several runs of a process share no state through. It imports no torch."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError

from kdmesh_mlflow import kept

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


class Log:
    """The metrics of one run. What was logged is in the store when a method returns.

    Names are ``accuracy/validation/student`` (metric, stream, agent or consensus), ``loss/student`` and
    ``flows/student/teacher to student`` (agent, flow), by the steps of its stage; ``rounds/<stage>/...`` by rounds;
    ``final/...`` as ``summary.json`` has them.
    """

    def __init__(self, run: Any) -> None:
        self._client, self._folder = MlflowClient(), run.folder
        self._keys: dict[str, str] = {}  # what each name of MLflow stands for
        self._last: dict[str, int] = {}  # by agent, the last step that was told
        self.id = self._continued(run.folder) if run.resumed else ""
        if not self.id:
            self._begin(run)

    def _continued(self, folder: Path) -> str:
        """The run of MLflow that a folder has begun, which goes on; "" where it is gone."""
        about = kept.read(folder)
        if about is None:
            return ""
        try:
            if self._client.get_run(about["run_id"]).info.lifecycle_stage != "active":
                return ""
            self._client.update_run(about["run_id"], status="RUNNING")
        except MlflowException:
            return ""
        return about["run_id"]

    def _begin(self, run: Any) -> None:
        """Make a run in the experiment, with the mesh as its params."""
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.mesh.name
        about = {"folder": str(run.folder), "seed": run.seed, "backend": run.backend, "part": run.part}
        tags = {_tag(name): str(value) for name, value in about.items()}
        made = self._client.create_run(self._experiment(experiment), run_name=run.part, tags=tags)
        self.id = made.info.run_id
        kept.write(run.folder, self.id, experiment)
        mesh = {name: value for name, value in run.mesh.dump().items() if name not in APART}
        params = [Param(self._key(name), str(value)[:6000]) for name, value in _leaves(mesh)]
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

    def trained(
        self, step: int, losses: Mapping[str, float | None], flows: Mapping[str, Mapping[str, float | None]]
    ) -> None:
        """Log mean losses at a step of a stage."""
        self._last.update(dict.fromkeys(losses, step))
        parts = {f"{agent}/{flow}": loss for agent, own in flows.items() for flow, loss in own.items()}
        self.write({"loss": losses, "flows": parts}, step)

    def measured(self, name: str, stream: str, metrics: Mapping[str, Any], step: int | None) -> None:
        """Log one evaluation of an agent."""
        step = self._last.get(name, 0) if step is None else step
        self._last[name] = step
        self.write({f"{metric}/{stream}/{name}": value for metric, value in metrics.items()}, step)

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Log final figures, how far each student is from its best teacher, and the files of the run."""
        agents, metric = summary["agents"], summary["metric"]
        final = {name: about["metrics"] for name, about in {**agents, **summary["consensus"]}.items()}
        gains = {}
        for name, about in agents.items():
            for stream, metrics in about["metrics"].items():
                theirs = agents.get(about["best_teacher"], {}).get("metrics", {}).get(stream, {}).get(metric)
                if theirs is not None and metrics.get(metric) is not None:
                    gains[f"{stream}/{name}"] = metrics[metric] - theirs
        self.write({"final": final, f"final/{metric} over the best teacher": gains}, 0)
        tags = {"metric": metric, "best_teacher": summary["best_teacher"], "notes": "\n".join(summary["notes"])}
        rows = [RunTag(_tag(name), str(value)[:5000]) for name, value in tags.items() if value]
        self._client.log_batch(self.id, tags=rows)
        for file in FILES:
            if (self._folder / file).is_file():
                self._client.log_artifact(self.id, str(self._folder / file))

    def failed(self, error: str) -> None:
        """Keep why the run ended."""
        self._client.set_tag(self.id, _tag("error"), error[:5000])

    def write(self, values: Mapping[str, Any], step: int) -> None:
        """Log every number of a nested mapping under its path; what is not a number is left out."""
        now = int(time.time() * 1000)
        numbers = [(name, value) for name, value in _leaves(values) if isinstance(value, int | float)]
        rows = [Metric(self._key(name), float(value), now, step) for name, value in numbers]
        for start in range(0, len(rows), 10 * BATCH):
            self._client.log_batch(self.id, metrics=rows[start : start + 10 * BATCH])

    def close(self, status: str) -> None:
        """End the run."""
        self._client.set_terminated(self.id, status)

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


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested mapping that is none itself, with its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value
