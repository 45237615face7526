"""`ray job submit`, real: a plugin and a package are brought along, `ray job stop`, and `resume` as another job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from commands import PATIENCE, ROOT, processes
from packaging.requirements import Requirement


def missing():
    """What `ray[default]` needs and is not installed."""
    found = []
    for need in map(Requirement, requires("ray") or []):
        if need.marker is not None and need.marker.evaluate({"extra": "default"}):
            try:
                version(need.name)
            except PackageNotFoundError:
                found.append(need.name)
    return sorted(set(found))


pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="finds its processes in /proc"),
    pytest.mark.skipif(bool(missing()), reason=f"no job server without ray[default]: {', '.join(missing())}"),
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory, rays_folder):
    """What `on_jobs.py` tells."""
    name, value = "KDMESH_TEST_MARK", uuid.uuid4().hex
    private = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2, "RAY_USAGE_STATS_ENABLED": "0"}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = [sys.executable, str(Path(__file__).with_name("on_jobs.py")), str(tmp_path_factory.mktemp("jobs"))]
    done = subprocess.run(
        [*script, rays_folder],
        env={**os.environ, **private, "PYTHONPATH": paths, name: value},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=8 * PATIENCE,
    )
    deadline = time.monotonic() + PATIENCE
    while (left := processes(f"{name}={value}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert done.returncode == 0, done.stderr[-4000:]
    told = {}
    for line in done.stdout.splitlines():
        told |= json.loads(line) if line.startswith("{") else {}
    return {**told, "left": left}


def test_a_job_that_is_stopped_is_collected_with_its_checkpoints(found):
    assert "what there is was collected: kdmesh resume file://" in found["stopped"]
    assert {"manifest.json", "stage.json", "events.jsonl"} <= set(found["files"])
    assert "summary.json" not in found["files"]


def test_another_job_goes_on_to_the_weights_of_a_local_run(found):
    assert found["resumed"] == found["expected"]
    assert "collected" not in found["said"] and "file://" in found["said"]


def test_no_process_stays(found):
    assert found["left"] == {}
