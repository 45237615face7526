"""What real runs log offline, read back from W&B's files; no network."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import kdmesh
import pytest
from kdmesh.cli import main
from kdmesh.errors import MeshError, RunFailed
from kdmesh.plugins import Registry, registry
from kdmesh.testing import ObserverContract

from kdmesh_wandb import kept, plugin

os.environ |= {"WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline"}
from wandb.proto.wandb_internal_pb2 import Record

SOURCE = str(Path(__file__).parent.parent / "src")
MLP = {"model": {"mlp": {"hidden": [8]}}}
BLOCK = 32768  # bytes of a block of its files, which are logs of LevelDB's form behind a head of 7 bytes


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Whatever is installed, a test registers the plugin itself; W&B writes into a folder of its own."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("KDMESH_PLUGINS", "")
    monkeypatch.setenv("WANDB_PROJECT", "distillation")
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    return folder


@pytest.fixture
def observed():
    """A registry with this plugin."""
    manager = registry().manager
    manager.register(plugin)
    yield
    manager.unregister(plugin)


class TestContract(ObserverContract):
    """Checks the hooks."""

    module = "kdmesh_wandb.plugin"


def mesh(lr=0.01):
    """Two small agents on part of the digits, with a letter that is not in ASCII."""
    return kdmesh.Mesh(
        name="small",
        data={"dataset": "digits", "train": 256},
        agents={"größe": MLP, "s": MLP},
        connect=[{"ensemble": {"teachers": ["größe"], "student": "s"}}],
        train={"epochs": 2, "optimizer": {"sgd": {"lr": lr}}},
    )


def records(folder):
    """The records of the one run that a folder holds, once W&B's own process has written the last one."""
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    ends = time.monotonic() + 60
    while not (found := list(parsed(path.read_bytes()))) or found[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < ends, "it never ended"
        time.sleep(0.05)
    return found


def parsed(data):
    """The records in what a file holds so far."""
    at, part = 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if not kind or at + 7 + size > len(data):
            return
        part = (b"" if kind in (1, 2) else part) + data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(part)


def name_of(item):
    """The key of a value."""
    return item.key or "/".join(item.nested_key)


def history(folder):
    """Each row that was logged, without W&B's own columns."""
    rows = [one.history.item for one in records(folder) if one.WhichOneof("record_type") == "history"]
    return [
        {name_of(item): json.loads(item.value_json) for item in row if not name_of(item).startswith("_")}
        for row in rows
    ]


def summary(folder):
    """The last value of each figure of the summary."""
    updates = [one.summary.update for one in records(folder) if one.WhichOneof("record_type") == "summary"]
    return {name_of(item): json.loads(item.value_json) for update in updates for item in update}


def code(folder):
    """The exit code."""
    (found,) = [one.exit.exit_code for one in records(folder) if one.WhichOneof("record_type") == "exit"]
    return found


def test_a_run_is_read_back(observed, home, tmp_path):
    result = mesh().run(backend="inline", out=tmp_path)
    (run,) = [one.run for one in records(home) if one.WhichOneof("record_type") == "run"]
    assert (run.project, run.run_group, run.display_name) == ("distillation", "small", "seed 0")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["mesh"]["agents"]["größe"]["model"] == MLP["model"] and config["folder"] == str(result.folder)
    rows = history(home)
    events = [json.loads(line) for line in (result.folder / "events.jsonl").read_text().splitlines()]
    points = [event for event in events if event["event"] == "trained" and "s" in event["losses"]]
    assert [(row["step"], row["loss/s"], row["flows/s/größe -> s"]) for row in rows if "loss/s" in row] == [
        (event["step"], event["losses"]["s"], event["flows"]["s"]["größe -> s"]) for event in points
    ]
    (last,) = [row for row in rows if "accuracy/test/s" in row]
    assert last["accuracy/test/s"] == result["s"].metrics["test"]["accuracy"] and last["step"] == points[-1]["step"]
    found = summary(home)
    assert found["final/s/test/accuracy"] == last["accuracy/test/s"] and code(home) == 0
    gain = last["accuracy/test/s"] - result["größe"].metrics["test"]["accuracy"]
    assert found["final/accuracy over the best teacher/test/s"] == pytest.approx(gain)


def test_a_run_that_fails_has_its_error(observed, home, tmp_path):
    with pytest.raises(RunFailed, match="the loss became"):
        mesh(1e30).run(backend="inline", out=tmp_path)
    assert code(home) == 1 and "the loss became" in summary(home)["error"]


class Told(SimpleNamespace):
    """A run as observers know it: it may be a key."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def told(folder, **more):
    """What an observer is told of a run, without the run."""
    about = {"folder": folder, "seed": 0, "backend": "inline", "part": "seed 0", "resumed": False, **more}
    return Told(mesh=SimpleNamespace(name="small", dump=lambda: {"name": "small"}), **about)


def test_an_interrupted_run_goes_on_under_the_same_id(home, tmp_path):
    run, again = told(tmp_path), told(tmp_path, resumed=True)
    plugin.kdmesh_run_started(run)
    plugin.kdmesh_run_failed(run, "KeyboardInterrupt", True)
    assert code(home) == 130
    first = kept.read(tmp_path)
    plugin.kdmesh_run_started(again)
    plugin.kdmesh_run_failed(again, "KeyboardInterrupt", True)
    assert kept.read(tmp_path) == first
    assert {path.stem for path in (home / "wandb").glob("offline-run-*/*.wandb")} == {f"run-{first['id']}"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "../../else"}', '{"id": 3}'])
def test_what_is_no_id_is_not_gone_on_with(tmp_path, text):
    (tmp_path / kept.NAME).write_text(text)
    assert kept.read(tmp_path) is None


@pytest.mark.parametrize(("variable", "value"), [("WANDB_PROJECT", ""), ("WANDB_MODE", "disabled")])
def test_nothing_is_logged_where_nobody_asks(tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    run = told(tmp_path)
    plugin.kdmesh_run_started(run)
    assert run not in plugin._logs and list(tmp_path.iterdir()) == []


def test_without_wandb_the_run_is_told_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "kdmesh_wandb.log", raising=False)
    with pytest.raises(MeshError, match="pip install wandb"):
        plugin.kdmesh_run_started(told(tmp_path))
    assert Registry([plugin]).observe("kdmesh_run_started", run=told(tmp_path))
    assert "pip install wandb" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_the_hooks_are_read_without_torch_and_without_wandb():
    probe = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from kdmesh.plugins import Registry;"
        "from kdmesh_wandb import plugin; Registry([plugin]);"
        "print(sorted({'torch', 'wandb', 'numpy', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_page_of_a_run_says_where_it_is(observed, tmp_path):
    result = mesh().run(backend="inline", out=tmp_path)
    assert main(["report", str(result.folder), "--static"]) == 0
    assert kept.read(result.folder)["id"] in (result.folder / "report.html").read_text()
