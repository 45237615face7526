"""Whole runs in processes of their own: what is left behind, what a signal does, and a cluster that is joined."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds that processes may take to end on a busy machine
SHORT = """
name: short
data: digits
agents: {a: {model: "beside:Net"}, b: {model: {mlp: {hidden: [8]}}}}
connect: [{mutual: {peers: [a, b]}}]
train: {epochs: 1}
placement: spread
"""
BESIDE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
"""


class Command:
    """`kdmesh run` in a session of its own, in another folder than the mesh; its children are known by a mark."""

    def __init__(self, folder, text, *arguments, **environment):
        (folder / "mesh.yaml").write_text(text, encoding="utf-8")
        (folder / "beside.py").write_text(BESIDE, encoding="utf-8")
        self.mark, self.out = f"KDMESH_TEST_MARK={uuid.uuid4().hex}", folder / "runs"
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kdmesh", "run", str(folder / "mesh.yaml"), "--out", str(self.out), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": paths, name: value, **environment},
            start_new_session=True,
        )

    def until(self, word):
        """Read what it says until a line has this word."""
        for line in self.process.stderr:
            if word in line:
                return
        raise AssertionError(f"ended without saying {word!r}")

    def end(self):
        """Wait for the end, of its children too; returns the exit code and what it still said."""
        said = self.process.communicate(timeout=PATIENCE)[1]
        deadline = time.monotonic() + PATIENCE
        while left := self.processes():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)
        return self.process.returncode, said

    def processes(self):
        """Pid and title of every process with the mark."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # ended meanwhile, or not ours
        return found

    def events(self):
        (path,) = self.out.glob("*/*/events.jsonl")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def endless(text):
    return text.replace("epochs: 1", "epochs: 100000")


def test_a_run_on_an_embedded_ray_leaves_no_process_and_finds_the_code_beside_its_file(tmp_path):
    command = Command(tmp_path, SHORT)
    code, said = command.end()
    assert code == 0, said
    events = command.events()
    assert events[0]["backend"] == "ray" and events[0]["hosts"] == {"host0": ["a"], "host1": ["b"]}
    assert events[-1]["event"] == "run_finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_130_and_leaves_no_process(tmp_path, number):
    command = Command(tmp_path, endless(SHORT))
    command.until("stage a")
    assert any(title.startswith("ray::") for title in command.processes().values())
    if number == signal.SIGINT:
        os.killpg(command.process.pid, number)  # as a terminal does
    else:
        command.process.send_signal(number)
    code, said = command.end()
    assert code == 130, said
    assert "Traceback" not in said
    assert f"kdmesh: interrupted; the run's folder is {command.out}" in said
    assert command.events()[-1]["event"] == "run_failed"


def test_a_killed_host_ends_the_run_with_its_name_and_without_a_traceback(tmp_path):
    command = Command(tmp_path, endless(SHORT))
    command.until("stage a")
    os.kill(next(pid for pid, title in command.processes().items() if title.startswith("ray::Worker")), signal.SIGKILL)
    code, said = command.end()
    assert code == 1, said
    assert "Traceback" not in said
    assert "placement.host" in said and "was lost" in said and "the last checkpoint" in said
    lost, failed = command.events()[-2:]
    assert (lost["event"], failed["event"]) == ("host_lost", "run_failed")
    assert lost["host"] in ("host0", "host1") and "was lost" in lost["error"]


CLUSTER = """
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


def test_a_running_cluster_is_joined_and_stays(tmp_path):
    private = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2, "RAY_USAGE_STATS_ENABLED": "0"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",
        env={**os.environ, **private},
    )
    try:
        address = cluster.stdout.readline().strip()
        code, said = Command(tmp_path, SHORT, "--ray-address", address, **private).end()
        assert code == 0, said
        code, said = Command(
            tmp_path, SHORT.replace("epochs: 1", "epochs: 1, threads: 2"), "--ray-address", address, **private
        ).end()
        assert code == 2, said
        assert "placement: the hosts take 4 CPUs (host0 2, host1 2), and this Ray has 2" in said
        assert cluster.poll() is None
    finally:
        cluster.communicate("\n", timeout=PATIENCE)


def test_a_wrong_address_is_wrong_input(tmp_path):
    code, said = Command(tmp_path, SHORT, "--ray-address", "127.0.0.1:9").end()
    assert code == 2, said
    assert "--ray-address: cannot join the Ray cluster at '127.0.0.1:9'" in said
    assert "instead: the address of a running cluster" in said and "Traceback" not in said


def test_a_signal_while_ray_starts_leaves_no_process(tmp_path):
    command = Command(tmp_path, endless(SHORT))
    deadline = time.monotonic() + PATIENCE
    while not any("raylet" in title for title in command.processes().values()):
        assert time.monotonic() < deadline and command.process.poll() is None
        time.sleep(0.02)
    command.process.send_signal(signal.SIGINT)
    code, said = command.end()
    assert code == 130, said
    assert "Traceback" not in said
