"""A cluster of several nodes: code that is sent, data that are checked, checkpoints that are collected, a lost node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from commands import PATIENCE, ROOT, processes

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="gives processes different views of a folder"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory, rays_folder):
    """What `on_cluster.py` tells."""
    name, value = "KDMESH_TEST_MARK", uuid.uuid4().hex
    private = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2, "RAY_USAGE_STATS_ENABLED": "0"}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = [sys.executable, str(Path(__file__).with_name("on_cluster.py")), str(tmp_path_factory.mktemp("cluster"))]
    done = subprocess.run(
        script if os.getuid() == 0 else ["unshare", "-Ur", *script],
        env={**os.environ, **private, "PYTHONPATH": paths, "RAY_TMPDIR": rays_folder, name: value},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    told = {key: item for line in lines for key, item in line.items()}
    if "skip" in told or (os.getuid() != 0 and not told):
        pytest.skip(f"no mount namespace here: {told.get('skip', done.stderr)}")
    assert done.returncode == 0, done.stderr[-4000:]
    deadline = time.monotonic() + PATIENCE
    while (left := processes(f"{name}={value}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return {**told, "left": left}


def test_code_beside_the_mesh_reaches_every_node(found):
    assert found["nodes"] == 2
    assert found["spread"] == found["expected"]


def test_checkpoints_and_agents_are_collected_where_no_storage_is_shared(found):
    parts = [f"hosts/host{number}.{end}" for number in (0, 1) for end in ("json", "safetensors")]
    assert found["checkpoint"] == [*parts, "manifest.json", "stage.json"]
    assert found["agents"] == ["README.md", "config.json", "model.safetensors"]


def test_a_store_of_another_node_is_told_of(found):
    """Nodes see another folder than the driver here: it is theirs that was used, and the driver made none."""
    (note,) = found["store"]
    assert "kept of its own machine" in note and f"{found['asked']['found']} answers were found there" in note
    assert found["asked"]["found"] > 0 == found["asked"]["forwarded"] and not found["here"]


def test_actors_on_several_nodes_label(found):
    rows, written = found["labelled"]
    assert rows == written > 0 and found["same"]
    assert found["warm"]["forwarded"] == 0 and found["warm"]["foreign"] == 0


def test_data_that_a_node_lacks_or_has_in_another_version_are_wrong_input(found):
    for name, said in (("rows.csv", "no file rows.csv"), ("other.csv", "other.csv has other samples here")):
        code, text = found["refused"][name]
        assert code == 2 and said in text and "on the node " in text, text


def test_a_node_that_is_removed_costs_no_bit(found):
    assert found["events"].count("host_lost") >= 1 and "stage_resumed" in found["events"]
    assert found["rebuilt"] == found["whole"]


def test_a_driver_with_the_environment_of_a_job_joins_by_auto(found):
    assert found["job"] == found["expected"]


def test_nothing_stays_on_the_cluster_nor_of_it(found):
    assert not any("Worker" in name for name in found["services"]), found["services"]
    assert found["living"] == [] and found["free"] == found["all"] == 2
    assert found["left"] == {}
