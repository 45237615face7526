"""The processes of an embedded Ray itself die: the run says what stands and how to go on, and goes on to equal bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import PATIENCE, Command

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"),
]
MESH = """
name: long
data: digits
agents: {a: {model: {mlp: {hidden: [16]}}}, b: {model: {mlp: {hidden: [8]}}}}
connect: [{mutual: {peers: [a, b]}}]
train: {epochs: 60}
placement: spread
"""


def bits(summary):
    return {name: facts["weights_sha256"] for name, facts in summary["agents"].items()}


@pytest.fixture(scope="module")
def unbroken():
    return bits(run_once(Request(parse(load(MESH)), "inline"))[0])


def found(command, service):
    """The process of Ray that has this name, once it is there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        for pid, title in command.processes().items():
            if Path(title.split(" ")[0]).name == service:
                return pid
        assert command.process.poll() is None and time.monotonic() < deadline, f"no {service}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("service", "opening"),
    [("raylet", True), ("raylet", False), ("gcs_server", True), ("gcs_server", False)],
)
def test_what_stands_is_said_and_the_run_goes_on(tmp_path, unbroken, service, opening):
    command = Command(tmp_path, MESH, "--checkpoint-seconds", "1")
    if not opening:
        command.until("stage a")
    os.kill(found(command, service), signal.SIGKILL)
    code, said = command.end()
    if code == 0:  # it was built anew
        assert bits(command.summary()) == unbroken
        return
    assert code == 1 and "Traceback" not in said, said
    last = said.strip().splitlines()[-1]
    if "kdmesh resume" in last:
        command.resume("--backend", "inline")
        code, said = command.end()
        assert code == 0, said
        assert bits(command.summary()) == unbroken
    else:  # there is not a folder yet: nothing was begun
        assert opening and not list(command.out.glob("*/*")), said


BETWEEN = """
import os, signal, sys
from kdmesh.backends import Session
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse

data, agents = {"dataset": "digits", "train": 128}, {"a": {"model": {"mlp": {"hidden": [4]}}}}
mesh = parse({"data": data, "agents": agents, "train": {"steps": 2}})
with Session("ray") as session:
    before = run_once(Request(mesh), session=session)[0]
    import ray
    (service,) = ray._private.worker._global_node.all_processes[sys.argv[1]]
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait()
    after = run_once(Request(mesh), session=session)[0]
print(before["agents"]["a"]["weights_sha256"] == after["agents"]["a"]["weights_sha256"])
"""


@pytest.mark.parametrize("service", ["raylet", "gcs_server"])
def test_a_service_that_died_between_two_runs_is_started_anew(service):
    """As between seeds, while controls train: a call to a Ray without its raylet would end this process, in silence."""
    command = [sys.executable, "-c", BETWEEN, service]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE)
    assert done.returncode == 0 and done.stdout.strip().endswith("True"), done.stdout + done.stderr[-4000:]
