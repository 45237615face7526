"""Each plugin of the cookbook alone: its mesh has equal bits inline and on Ray, spread out, broken off and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from commands import PATIENCE
from commands import kdmesh as command

from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.contracts.events import Trained
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse, read_mesh

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"
NAMES = sorted(path.stem for path in COOKBOOK.glob("*.py"))
MOST = {"epochs": 2, "rounds": 2, "begin_epochs": 2, "tune_epochs": 2, "count": 3, "threshold": 2}
INLINE = Session("inline")


def shortened(value):
    """The same mesh with no more than two epochs or rounds of anything, and three of a kind."""
    if isinstance(value, dict):
        return {
            key: min(item, MOST[key]) if isinstance(item, int) and key in MOST else shortened(item)
            for key, item in value.items()
        }
    return [shortened(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def few(kitchen, monkeypatch):
    """``few(name, placement)``: the mesh of one plugin, which is the only one there is, on few samples.

    ``others``: all of them are there, the same ones for each mesh: Ray's workers are kept while plugins stay the same.
    """

    def made(name, placement, others=False):
        monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(kitchen))
        monkeypatch.setenv("KDMESH_PLUGINS", ",".join(path.stem for path in kitchen.glob("*.py")) if others else name)
        assert [(one.status, one.error, one.remark) for one in registry().records if one.name == name] == [
            ("ok", "", "")
        ]
        fields = shortened(yaml.safe_load((kitchen / f"{name}.yaml").read_text(encoding="utf-8")))
        given = {"dataset": fields["data"]} if isinstance(fields["data"], str) else fields["data"]
        shards = any("shards" in stream for stream in fields.get("streams", {}).values())
        sizes = {"validation": 30, "test": 30, "train": 300 if shards else 110}
        sizes |= {"transfer": 64} if "transfer" in given else {}
        fields |= {"data": given | sizes, "placement": placement}
        path = kitchen / f"few_{name}_{placement}.yaml"
        path.write_text(yaml.safe_dump(fields), encoding="utf-8")
        return read_mesh(path)

    return made


def on_two_hosts(spec):
    """A mesh that is spread over as many hosts as it can be, on two of them."""
    hosts = list(make_plan(spec, registry()).hosts.values())
    parts = {name: [agent for host in hosts[first::2] for agent in host] for first, name in enumerate(("one", "two"))}
    return parse({**spec.dump(), "placement": {name: agents for name, agents in parts.items() if agents}})


def weights(summary):
    """The sha256 of all agents' weights, each agent's its own."""
    return {name: about["weights_sha256"] for name, about in summary["agents"].items()}


@pytest.fixture(scope="module")
def expected():
    """The weights of each mesh, run inline with all agents together: kept from test to test."""
    return {}


@pytest.fixture
def whole(few, expected):
    """``whole(name)``: these weights."""

    def found(name):
        if name not in expected:
            summary, *_ = run_once(Request(few(name, "together")), session=INLINE)
            expected[name] = weights(summary)
            assert any(about["updates"] for about in summary["agents"].values())
        return expected[name]

    return found


def test_there_are_twelve():
    assert len(NAMES) == 12 == len(list(COOKBOOK.glob("*.yaml")))


@pytest.mark.parametrize("name", NAMES)
def test_spread_out_broken_off_and_resumed_it_has_equal_bits(name, few, whole, tmp_path, monkeypatch):
    counted, inner = [0, 0], InlineBackend.call

    def call(self, *args, **options):
        counted[0] += 1
        if counted[0] == counted[1]:
            raise KeyboardInterrupt
        return inner(self, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    spec = few(name, "spread")
    run_once(Request(spec, checkpoint_seconds=0, out=tmp_path / "whole"), session=INLINE)
    counted[:] = [0, 3 * counted[0] // 5]
    with suppress(KeyboardInterrupt):
        run_once(Request(spec, out=tmp_path / "broken", checkpoint_seconds=0), session=INLINE)
    (folder,) = (tmp_path / "broken").glob("*/*")
    assert not (folder / "summary.json").exists() and list(folder.glob("checkpoints/*/*/manifest.json"))
    counted[:] = [0, 0]
    run_once(Request(spec, resume=folder), session=INLINE)
    for path in (tmp_path / "whole").glob("*/*/summary.json"), folder.glob("summary.json"):
        (found,) = path
        assert weights(json.loads(found.read_text(encoding="utf-8"))) == whole(name)


@pytest.mark.ray
@pytest.mark.parametrize("name", NAMES)
def test_on_ray_it_has_equal_bits(name, few, whole, ray_session):
    summary, *_ = run_once(Request(on_two_hosts(few(name, "spread", others=True))), session=ray_session)
    assert weights(summary) == whole(name)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_on_ray_broken_off_and_resumed_it_has_equal_bits(name, few, whole, ray_session, tmp_path):
    def interrupt(event):
        if isinstance(event, Trained):
            raise KeyboardInterrupt

    spec = on_two_hosts(few(name, "spread", others=True))
    with pytest.raises(KeyboardInterrupt):
        run_once(Request(spec, out=tmp_path, checkpoint_seconds=0, listeners=(interrupt,)), session=ray_session)
    (folder,) = tmp_path.glob("*/*")
    summary, *_ = run_once(Request(spec, resume=folder), session=ray_session)
    assert weights(summary) == whole(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_and_resumed_it_has_equal_bits(name, few, whole, kitchen, tmp_path):
    """SIGKILL comes to the command once there is a checkpoint."""
    few(name, "together")
    mesh, begin = kitchen / f"few_{name}_together.yaml", ["run", "--quiet", "--backend", "inline"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kdmesh", *begin, "--checkpoint-seconds", "0", "--out", str(tmp_path), str(mesh)],
        stderr=subprocess.PIPE,
    )
    ends = time.monotonic() + PATIENCE
    while process.poll() is None and not list(tmp_path.glob("*/*/checkpoints/*/*/manifest.json")):
        assert time.monotonic() < ends, "it writes no checkpoint"
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    process.stderr.close()
    (folder,) = tmp_path.glob("*/*")
    done = command(tmp_path, "resume", str(folder), "--quiet")
    assert done.returncode == 0, done.stderr
    assert weights(json.loads((folder / "summary.json").read_text(encoding="utf-8"))) == whole(name)
