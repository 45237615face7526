"""What is written during real runs, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import kdmesh
import pytest
from kdmesh.errors import MeshError
from kdmesh.plugins import Registry, registry
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from kdmesh_tensorboard.log import Log
from kdmesh_tensorboard.plugin import observer as plugin

SOURCE = str(Path(__file__).parent.parent / "src")
PAIR = {"a": {"model": {"mlp": {"hidden": [8]}}}, "b": {"model": {"mlp": {"hidden": [8]}}}}
TAUGHT = [{"ensemble": {"teachers": ["a"], "student": "b"}}]
ROUNDS = [{"rounds": {"students": ["a", "b"], "rounds": 2}}]


@pytest.fixture(autouse=True)
def built_in_only(monkeypatch):
    """Whatever is installed, a test registers the plugin itself."""
    monkeypatch.setenv("KDMESH_PLUGINS", "")


@pytest.fixture
def observed():
    """A registry with this plugin."""
    manager = registry().manager
    manager.register(plugin)
    yield
    manager.unregister(plugin)


def run(out, connect=TAUGHT, **data):
    """Train two small peers on part of the digits."""
    mesh = kdmesh.Mesh(
        name="small",
        data={"dataset": "digits", "train": 256, **data},
        agents=PAIR,
        connect=connect,
        train={"epochs": 2},
    )
    return mesh.run(backend="inline", out=out)


def scalars(folder):
    """``{tag: [(step, value)]}`` of the one event file in a folder."""
    (file,) = folder.iterdir()
    found = EventAccumulator(str(file))
    found.Reload()
    return {
        tag: [(event.step, float(make_ndarray(event.tensor_proto))) for event in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
    }


def test_evaluations_of_a_run_are_read_back(observed, tmp_path):
    result = run(tmp_path)
    found = scalars(result.folder / "tensorboard")
    events = [json.loads(line) for line in (result.folder / "events.jsonl").read_text().splitlines()]
    for agent in PAIR:
        for stream in ("validation", "test"):
            told = [
                e["metrics"]
                for e in events
                if e["event"] == "evaluated" and (e["agent"], e["stream"]) == (agent, stream)
            ]
            assert told and told[-1] == result[agent].metrics[stream]
            for metric in ("accuracy", "loss", "ece"):
                curve = found[f"{metric}/{stream}/{agent}"]
                assert [step for step, _ in curve] == list(range(1, len(told) + 1))
                assert [value for _, value in curve] == pytest.approx([metrics[metric] for metrics in told], rel=1e-6)
    trained = [e for e in events if e["event"] == "trained" and "b" in e["losses"]]
    for tag, value in (("loss/b", lambda e: e["losses"]["b"]), ("flows/b/a -> b", lambda e: e["flows"]["b"]["a -> b"])):
        assert found[tag] == [(e["step"], pytest.approx(value(e), rel=1e-6)) for e in trained]
    stages = {tag: points for tag, points in found.items() if tag.startswith("stages/")}
    assert sorted(step for points in stages.values() for step, _ in points) == [1, 2]


def test_rounds_and_consensus_are_read_back(observed, tmp_path):
    result = run(tmp_path, ROUNDS, transfer=0.2)
    found = scalars(result.folder / "tensorboard")
    (stage,) = {row["stage"] for row in result.summary["rounds"]}
    told = [row["metrics"] for row in result.summary["rounds"]]
    assert found[f"rounds/{stage}/agreement"] == [(n, pytest.approx(m["agreement"])) for n, m in enumerate(told, 1)]
    assert found[f"rounds/{stage}/gain/b"] == [(n, pytest.approx(m["gain"]["b"])) for n, m in enumerate(told, 1)]
    assert found[f"rounds/{stage}/churn"] == [(2, pytest.approx(told[1]["churn"]))]  # the first round has none
    ((name, about),) = result.summary["consensus"].items()
    for stream, metrics in about["metrics"].items():
        assert found[f"accuracy/{stream}/{name}"] == [(1, pytest.approx(metrics["accuracy"]))]


def test_weights_have_the_same_bits_with_and_without(tmp_path):
    without = run(tmp_path / "without")
    registry().manager.register(plugin)
    try:
        observed = run(tmp_path / "with")
    finally:
        registry().manager.unregister(plugin)
    assert (observed.folder / "tensorboard").is_dir() and not (without.folder / "tensorboard").exists()
    for agent in PAIR:
        assert observed[agent].weights_sha256 == without[agent].weights_sha256


def test_a_run_without_a_folder_writes_nothing(observed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(None)
    assert list(tmp_path.iterdir()) == [] and "tensorboard" not in capsys.readouterr().err
    assert not plugin.trackers


def test_a_log_holds_what_was_written_before_it_is_closed(tmp_path):
    log = Log(SimpleNamespace(folder=tmp_path))
    log.evaluated("a", "test", {"accuracy": 0.5, "loss": None})
    log.evaluated("a", "test", {"accuracy": 1})
    log.evaluated("b", "test", {"accuracy": 0.25})
    assert scalars(tmp_path / "tensorboard") == {
        "accuracy/test/a": [(1, 0.5), (2, 1.0)],
        "accuracy/test/b": [(1, 0.25)],
    }
    log.close("finished", "")


def test_without_tensorboard_the_run_is_told_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    monkeypatch.delitem(sys.modules, "kdmesh_tensorboard.log")
    with pytest.raises(MeshError, match="pip install tensorboard"):
        plugin.kdmesh_run_started(run=SimpleNamespace(folder=tmp_path))
    found = Registry([plugin])
    found.observe("kdmesh_run_started", run=SimpleNamespace(folder=tmp_path))
    assert "pip install tensorboard" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_hooks_are_read_without_torch_and_without_tensorboard():
    probe = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from kdmesh.plugins import Registry;"
        "from kdmesh_tensorboard.plugin import observer; Registry([observer]);"
        "print(sorted({'torch', 'tensorboard', 'numpy', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_writer_needs_no_torch():
    probe = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); import kdmesh_tensorboard.log;"
        "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_page_of_a_run_says_where_its_logs_are(observed, tmp_path):
    from kdmesh.cli import main

    result = run(tmp_path)
    assert main(["report", str(result.folder), "--static"]) == 0
    page = (result.folder / "report.html").read_text()
    (file,) = (result.folder / "tensorboard").iterdir()
    assert f"tensorboard/{file.name}" in page and f"tensorboard --logdir {result.folder}" in page


def test_the_page_of_a_run_without_logs_does_not(observed, tmp_path):
    folder = SimpleNamespace(seeds={0: tmp_path}, folder=tmp_path)
    assert plugin.kdmesh_report(folder) is None
