"""Three machines with networks of their own, and a cable that is pulled: a minute, on KDMESH_TEST_NETWORKS=1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from commands import PATIENCE, ROOT, processes

TOOLS = [tool for tool in ("ip", "nsenter", "unshare") if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.skipif("KDMESH_TEST_NETWORKS" not in os.environ, reason="asked for by KDMESH_TEST_NETWORKS=1"),
    pytest.mark.skipif(bool(TOOLS), reason=f"not installed here: {', '.join(TOOLS)}"),
]


def test_a_machine_whose_cable_is_pulled_costs_no_bit(tmp_path):
    name, value = "KDMESH_TEST_MARK", uuid.uuid4().hex
    private = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2, "RAY_USAGE_STATS_ENABLED": "0"}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = [sys.executable, str(Path(__file__).with_name("on_networks.py")), str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-rnmpf", "--mount-proc", "--kill-child", *script],
        env={**os.environ, **private, "PYTHONPATH": paths, name: value},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    found = {
        key: item for line in done.stdout.splitlines() if line[:1] == "{" for key, item in json.loads(line).items()
    }
    if "skip" in found or (done.returncode and done.stderr.startswith("unshare:")):
        pytest.skip(f"no namespaces here: {found.get('skip', done.stderr)}")
    assert done.returncode == 0, done.stderr[-4000:]
    assert found["machines"] == ["10.7.0.1", "10.7.0.2", "10.7.0.3"]
    assert found["pulled"] in found["homes"] and len(found["homes"]) == 2
    assert found["left"] == [address for address in found["machines"] if address != found["pulled"]]
    assert "host_lost" in found["events"] and "stage_resumed" in found["events"]
    assert found["found"] == found["expected"]
    assert processes(f"{name}={value}") == {}
