"""What real runs log, read back with MLflow's own client from a folder; no network, no telemetry."""

from __future__ import annotations

import os
from types import SimpleNamespace

import kdmesh
import pytest
from kdmesh.plugins import registry
from kdmesh.testing import Tracked, TrackerContract

from kdmesh_mlflow.plugin import IDENTITY, observer

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
from mlflow.tracking import MlflowClient

ENDS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted", "RUNNING": "running"}


@pytest.fixture(autouse=True)
def store(tmp_path_factory, monkeypatch):
    """Whatever is installed, a test registers the plugin itself; runs are kept in a folder of its own."""
    monkeypatch.setenv("KDMESH_PLUGINS", "")
    uri = tmp_path_factory.mktemp("store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return uri


def logged(store):
    """The client, and the runs of all experiments, the first one first."""
    client = MlflowClient(tracking_uri=store)
    experiments = [one.experiment_id for one in client.search_experiments()]
    return client, sorted(client.search_runs(experiments), key=lambda run: run.info.start_time)


class TestContract(TrackerContract):
    """Checks the hooks, and what is logged."""

    module = "kdmesh_mlflow.plugin:observer"
    library, install = "mlflow.tracking", "pip install mlflow-skinny"
    switches = {"MLFLOW_TRACKING_URI": ""}  # noqa: RUF012

    def key(self, name):
        return name.replace("->", "to")

    @pytest.fixture
    def tracked(self, store):
        """The runs in the store."""

        def read():
            client, runs = logged(store)
            return [
                Tracked(
                    run.info.run_name,
                    ENDS[run.info.status],
                    {
                        key: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, key)]
                        for key in run.data.metrics
                    },
                    run.data.metrics,
                    run.data.tags.get("kdmesh.error", ""),
                )
                for run in runs
            ]

        return read


def test_the_mesh_is_its_params_and_files_are_kept(store, tmp_path):
    mlp = {"model": {"mlp": {"hidden": [8]}}}
    mesh = kdmesh.Mesh(
        name="small",
        data={"dataset": "digits", "train": 256},
        agents={"größe": mlp, "s": mlp},
        connect=[{"ensemble": {"teachers": ["größe"], "student": "s"}}],
        train={"epochs": 1},
    )
    manager = registry().manager
    manager.register(observer)
    try:
        result = mesh.run(backend="inline", out=tmp_path)
    finally:
        manager.unregister(observer)
    client, (run,) = logged(store)
    assert run.data.tags["kdmesh.folder"] == str(result.folder) and run.data.tags["kdmesh.metric"] == "accuracy"
    assert run.data.params["agents/größe/model/mlp/hidden"] == "[8]" and run.data.params["train/epochs"] == "1"
    assert "flows/s/größe to s" in run.data.metrics
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"summary.json", "resolved.yaml"}
    assert client.get_experiment(run.info.experiment_id).name == "small"


class Told(SimpleNamespace):
    """A run as observers know it: it may be a key."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def told(folder, **more):
    """What an observer is told of a run, without the run."""
    about = {"folder": folder, "seed": 0, "backend": "inline", "part": "seed 0", "resumed": False, **more}
    spec = SimpleNamespace(name="small", dump=lambda: {"name": "small", "train": {"epochs": 2}})
    return Told(mesh=spec, **about)


def test_where_the_run_is_gone_another_begins(store, tmp_path):
    observer.kdmesh_run_started(told(tmp_path))
    client, (first,) = logged(store)
    observer.kdmesh_run_started(told(tmp_path, resumed=True))
    assert [run.info.status for run in logged(store)[1]] == ["RUNNING"]
    client.delete_run(first.info.run_id)
    observer.kdmesh_run_started(told(tmp_path, resumed=True))
    assert logged(store)[1][0].info.run_id == IDENTITY.read(tmp_path)[0] != first.info.run_id


def test_names_that_mlflow_does_not_take_stay_apart(store, tmp_path):
    from kdmesh_mlflow.log import Log

    log = Log(told(tmp_path))
    log.write({"a[1]": 1, "a_1_": 2, "b: c": 3, "..": 4, "x" * 300: 5, "x" * 301: 6, "none": None, "text": "t"}, 1)
    found = logged(store)[1][0].data.metrics
    assert sorted(found.values()) == [1, 2, 3, 4, 5, 6] and {"a_1_", "a_1__2", "b_ c", "_"} < {*found}
