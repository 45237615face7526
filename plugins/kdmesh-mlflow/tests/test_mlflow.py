"""What real runs log, read back with MLflow's own client from a folder; no network, no telemetry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import kdmesh
import pytest
from kdmesh.cli import main
from kdmesh.errors import MeshError, RunFailed
from kdmesh.plugins import Registry, registry
from kdmesh.testing import ObserverContract

from kdmesh_mlflow import kept, plugin

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
from mlflow.tracking import MlflowClient

SOURCE = str(Path(__file__).parent.parent / "src")
MLP = {"model": {"mlp": {"hidden": [8]}}}


@pytest.fixture(autouse=True)
def store(tmp_path_factory, monkeypatch):
    """Whatever is installed, a test registers the plugin itself; runs are kept in a folder of its own."""
    monkeypatch.setenv("KDMESH_PLUGINS", "")
    uri = tmp_path_factory.mktemp("store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return uri


@pytest.fixture
def observed():
    """A registry with this plugin."""
    manager = registry().manager
    manager.register(plugin)
    yield
    manager.unregister(plugin)


class TestContract(ObserverContract):
    """Checks the hooks."""

    module = "kdmesh_mlflow.plugin"


def mesh(lr=0.01):
    """Two small agents on part of the digits, with a letter that is not in ASCII and a numbered name."""
    return kdmesh.Mesh(
        name="small",
        data={"dataset": "digits", "train": 256},
        agents={"größe": MLP, "s": MLP},
        connect=[{"ensemble": {"teachers": ["größe"], "student": "s"}}],
        train={"epochs": 2, "optimizer": {"sgd": {"lr": lr}}},
    )


def logged(store, name="small"):
    """The client, and the runs of an experiment, the first one first."""
    client = MlflowClient(tracking_uri=store)
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return client, sorted(runs, key=lambda run: run.info.start_time)


def test_a_run_is_read_back(observed, store, tmp_path):
    result = mesh().run(backend="inline", out=tmp_path)
    client, (run,) = logged(store)
    assert run.info.status == "FINISHED" and run.info.run_name == "seed 0"
    assert run.data.tags["kdmesh.folder"] == str(result.folder) and run.data.tags["kdmesh.metric"] == "accuracy"
    assert run.data.params["agents/größe/model/mlp/hidden"] == "[8]" and run.data.params["train/epochs"] == "2"
    events = [json.loads(line) for line in (result.folder / "events.jsonl").read_text().splitlines()]
    points = [event for event in events if event["event"] == "trained" and "s" in event["losses"]]
    for key, value in (
        ("loss/s", lambda event: event["losses"]["s"]),
        ("flows/s/größe to s", lambda event: event["flows"]["s"]["größe -> s"]),
    ):
        history = client.get_metric_history(run.info.run_id, key)
        assert [(one.step, one.value) for one in history] == [(event["step"], value(event)) for event in points]
    last = client.get_metric_history(run.info.run_id, "accuracy/test/s")[-1]
    assert last.value == result["s"].metrics["test"]["accuracy"] and last.step == points[-1]["step"]
    found = run.data.metrics
    assert found["final/s/test/accuracy"] == last.value
    gain = last.value - result["größe"].metrics["test"]["accuracy"]
    assert found["final/accuracy over the best teacher/test/s"] == pytest.approx(gain)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"summary.json", "resolved.yaml"}


def test_seeds_are_runs_of_their_own(observed, store, tmp_path):
    result = mesh().run(backend="inline", out=tmp_path, seeds=2)
    _, runs = logged(store)
    assert [(run.info.run_name, run.info.status) for run in runs] == [("seed 0", "FINISHED"), ("seed 1", "FINISHED")]
    ids = [kept.read(result.folder / "seeds" / seed)["run_id"] for seed in "01"]
    assert ids == [run.info.run_id for run in runs]


def test_a_run_that_fails_is_failed(observed, store, tmp_path):
    with pytest.raises(RunFailed, match="the loss became"):
        mesh(1e30).run(backend="inline", out=tmp_path)
    _, (run,) = logged(store)
    assert run.info.status == "FAILED" and "the loss became" in run.data.tags["kdmesh.error"]


class Told(SimpleNamespace):
    """A run as observers know it: it may be a key."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def told(folder, **more):
    """What an observer is told of a run, without the run."""
    about = {"folder": folder, "seed": 0, "backend": "inline", "part": "seed 0", "resumed": False, **more}
    spec = SimpleNamespace(name="small", dump=lambda: {"name": "small", "train": {"epochs": 2}})
    return Told(mesh=spec, **about)


def test_an_interrupted_run_is_killed_and_goes_on_as_the_same(store, tmp_path):
    first = told(tmp_path)
    plugin.kdmesh_run_started(first)
    plugin.kdmesh_run_failed(first, "KeyboardInterrupt", True)
    assert logged(store)[1][0].info.status == "KILLED"
    again = told(tmp_path, resumed=True)
    plugin.kdmesh_run_started(again)
    client, (run,) = logged(store)
    assert run.info.status == "RUNNING"
    client.delete_run(run.info.run_id)
    plugin.kdmesh_run_started(told(tmp_path, resumed=True))  # which is gone: a new one
    assert logged(store)[1][0].info.run_id == kept.read(tmp_path)["run_id"] != run.info.run_id


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run_id": "../../elsewhere"}', '{"run_id": 3e5}'])
def test_what_is_no_run_is_not_gone_on_with(tmp_path, text):
    (tmp_path / kept.NAME).write_text(text)
    assert kept.read(tmp_path) is None


def test_names_that_mlflow_does_not_take_stay_apart(store, tmp_path):
    from kdmesh_mlflow.log import Log

    log = Log(told(tmp_path))
    log.write({"a[1]": 1, "a_1_": 2, "b: c": 3, "..": 4, "x" * 300: 5, "x" * 301: 6, "none": None, "text": "t"}, 1)
    found = logged(store)[1][0].data.metrics
    assert sorted(found.values()) == [1, 2, 3, 4, 5, 6] and {"a_1_", "a_1__2", "b_ c", "_"} < {*found}


def test_nothing_is_logged_where_nobody_says_where(observed, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run = told(tmp_path)
    plugin.kdmesh_run_started(run)
    assert run not in plugin._logs and list(tmp_path.iterdir()) == []


def test_without_mlflow_the_run_is_told_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    monkeypatch.delitem(sys.modules, "kdmesh_mlflow.log", raising=False)
    with pytest.raises(MeshError, match="pip install mlflow-skinny"):
        plugin.kdmesh_run_started(told(tmp_path))
    assert Registry([plugin]).observe("kdmesh_run_started", run=told(tmp_path))
    assert "pip install mlflow-skinny" in capsys.readouterr().err


def test_the_hooks_are_read_without_torch_and_without_mlflow():
    probe = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from kdmesh.plugins import Registry;"
        "from kdmesh_mlflow import plugin; Registry([plugin]);"
        "print(sorted({'torch', 'mlflow', 'numpy', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_page_of_a_run_says_which_it_is(observed, tmp_path):
    result = mesh().run(backend="inline", out=tmp_path)
    assert main(["report", str(result.folder), "--static"]) == 0
    assert kept.read(result.folder)["run_id"] in (result.folder / "report.html").read_text()
