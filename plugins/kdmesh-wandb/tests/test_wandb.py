"""What real runs log offline, read back from W&B's files; no network."""

from __future__ import annotations

import json
import os
import struct
import sys
import time

import kdmesh
import pytest
from kdmesh.plugins import registry
from kdmesh.testing import Tracked, TrackerContract

from kdmesh_wandb.plugin import IDENTITY, observer

os.environ |= {"WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline"}
from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768  # bytes of a block of its files, which are logs of LevelDB's form behind a head of 7 bytes


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Whatever is installed, a test registers the plugin itself; W&B writes into a folder of its own."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("KDMESH_PLUGINS", "")
    monkeypatch.setenv("WANDB_PROJECT", "distillation")
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    for name in ("exit", "excepthook"):  # W&B puts its own in their place, which tests after these would meet
        monkeypatch.setattr(sys, name, getattr(sys, name))
    return folder


def records(path):
    """The records in a run's file, once W&B's own process has written the last one."""
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


def values(items):
    """What some items hold, by key."""
    return {name_of(item): json.loads(item.value_json) for item in items}


class TestContract(TrackerContract):
    """Checks the hooks, and what is logged."""

    module = "kdmesh_wandb.plugin:observer"
    library, install = "wandb", "pip install wandb"
    switches = {"WANDB_PROJECT": "", "WANDB_MODE": "disabled"}  # noqa: RUF012

    @pytest.fixture
    def tracked(self, home):
        """The runs in W&B's folder; one that went on has a file for each time, of one id."""

        def read():
            found = {}
            for path in sorted((home / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_ctime):
                name, rows, final, code = parts(path)
                one = found.setdefault(path.stem, Tracked(name, "running"))
                one.end, one.error = {0: "finished", 1: "failed", 130: "interrupted"}[code], final.get("error", "")
                one.final = {key: value for key, value in final.items() if isinstance(value, int | float)}
                for row in rows:
                    for key in row.keys() - {"step", "round"}:
                        one.curves.setdefault(key, []).append((row.get("step", row.get("round")), row[key]))
            return [*found.values()]

        return read


def parts(path):
    """Of a run's file: its name, the rows that were logged without W&B's own columns, the summary, the exit code."""
    found = {}
    for record in records(path):
        found.setdefault(record.WhichOneof("record_type"), []).append(record)
    rows = [values(record.history.item) for record in found.get("history", [])]
    rows = [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]
    final = {}
    for record in found.get("summary", []):
        final |= values(record.summary.update)
    return found["run"][0].run.display_name, rows, final, found["exit"][-1].exit.exit_code


def test_the_mesh_is_its_config(home, tmp_path):
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
    (path,) = (home / "wandb").glob("offline-run-*/*.wandb")
    assert path.stem == f"run-{IDENTITY.read(result.folder)[0]}"
    (run,) = [one.run for one in records(path) if one.WhichOneof("record_type") == "run"]
    assert (run.project, run.run_group, run.display_name) == ("distillation", "small", "seed 0")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["mesh"]["agents"]["größe"]["model"] == mlp["model"] and config["folder"] == str(result.folder)
    assert any("flows/s/größe -> s" in row for row in parts(path)[1])
