"""Whole runs in processes of their own: what is left behind, what a signal does, and a cluster that is joined."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from commands import PATIENCE, Command, kill

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import HostLost
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")

SHORT = """
name: short
data: digits
agents: {a: {model: "beside:Net"}, b: {model: {mlp: {hidden: [8]}}}}
connect: [{mutual: {peers: [a, b]}}]
train: {epochs: 1}
placement: spread
"""

LONG = """
name: long
data: digits
agents: {a: {model: {mlp: {hidden: [16]}}}, b: {model: {mlp: {hidden: [8]}}}}
connect: [{mutual: {peers: [a, b]}}]
train: {epochs: 30}
placement: spread
"""


def endless(text):
    return text.replace("epochs: 1", "epochs: 100000")


def bits(summary):
    return {name: facts["weights_sha256"] for name, facts in summary["agents"].items()}


@pytest.fixture(scope="module")
def unbroken():
    """The weights that `LONG` ends with."""
    return bits(run_once(Request(parse(load(LONG)), "inline"))[0])


def workers(command):
    return [pid for pid, title in command.processes().items() if title.startswith("ray::Worker")]


@pytest.mark.parametrize(
    ("number", "backend"),
    [(signal.SIGINT, "inline"), pytest.param(signal.SIGTERM, "ray", marks=pytest.mark.slow)],
)
def test_an_interrupted_run_leaves_no_process_and_goes_on_to_equal_bits(tmp_path, number, backend, unbroken):
    command = Command(tmp_path, LONG)
    command.until("stage a")
    assert workers(command)
    if number == signal.SIGINT:
        os.killpg(command.process.pid, number)  # as a terminal does
    else:
        command.process.send_signal(number)
    code, said = command.end()
    assert code == 130, said
    assert "Traceback" not in said
    assert f"kdmesh: interrupted; go on with: kdmesh resume {command.out}" in said
    assert command.events()[-1]["event"] == "run_failed"
    command.resume("--backend", backend)
    code, said = command.end()
    assert code == 0, said
    assert bits(command.summary()) == unbroken
    assert [event["event"] for event in command.events()].count("stage_resumed") == 1
    command.resume()
    code, said = command.end()
    assert code == 2 and "this run has finished" in said


@pytest.mark.slow  # a run that is interrupted as it trains is above
def test_a_run_that_has_finished_is_closed_whoever_interrupts_that(tmp_path):
    command = Command(tmp_path, SHORT)
    deadline = time.monotonic() + PATIENCE
    while not command.shown.stat().st_size:  # its results are shown while Ray is still there
        assert time.monotonic() < deadline and command.process.poll() is None
        time.sleep(0.02)
    command.process.send_signal(signal.SIGINT)  # at once: to look for Ray's processes takes a busy machine too long
    code, said = command.end()
    assert code == 0 and "the run has finished" in said and "Traceback" not in said, said
    assert str(command.out) in command.shown.read_text(encoding="utf-8")


def test_a_second_signal_ends_a_run_at_once(tmp_path):
    command = Command(tmp_path, endless(SHORT), "--backend", "inline")
    command.until("stage a")
    command.process.send_signal(signal.SIGSTOP)  # both wait for it when it wakes
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        command.process.send_signal(number)
    code, said = command.end()
    assert code == 130 and "Traceback" not in said, said


@pytest.mark.slow  # hosts that die at some step are in test_chaos.py, and one of a command is below
def test_a_killed_host_is_built_anew_and_its_steps_are_made_again(tmp_path, unbroken):
    command = Command(tmp_path, LONG, "--checkpoint-seconds", "1")
    command.until("stage a")
    os.kill(workers(command)[0], signal.SIGKILL)
    code, said = command.end()
    assert code == 0, said
    assert "was lost" in said and "built anew from the last checkpoints" in said and "Traceback" not in said
    lost = [event for event in command.events() if event["event"] == "host_lost"]
    assert len(lost) == 1 and lost[0]["host"] in ("host0", "host1")
    assert bits(command.summary()) == unbroken


DYING = """
import os, signal, sys
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        died = Path(__file__).with_name("died")
        if Path(sys.argv[0]).name == "default_worker.py" and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_host_that_dies_as_it_is_opened_is_built_anew_and_a_finished_run_leaves_no_process(tmp_path, monkeypatch):
    """The code of its model stands beside its file, in another folder than the command's."""
    (tmp_path / "dying.py").write_text(DYING)
    text = SHORT.replace("beside:Net", "dying:Net")
    command = Command(tmp_path, text)
    code, said = command.end()
    assert code == 0, said
    assert (tmp_path / "died").exists() and "was lost" in said and "Traceback" not in said
    events = command.events()
    (opened,) = [event for event in events if event["event"] == "hosts_opening"]
    assert opened["backend"] == "ray" and opened["hosts"] == {"host0": ["a"], "host1": ["b"]}
    assert [event["event"] for event in events].count("host_lost") == 1 and events[-1]["event"] == "run_finished"
    monkeypatch.syspath_prepend(tmp_path)
    assert bits(command.summary()) == bits(run_once(Request(parse(load(text)), "inline"))[0])


@pytest.mark.slow  # without a process of its own in test_ray_backend.py
def test_a_host_that_hangs_counts_as_lost(tmp_path, unbroken):
    command = Command(tmp_path, LONG, "--progress-timeout", "60")  # a busy machine's live hosts answer within it
    command.until("stage a")
    os.kill(workers(command)[0], signal.SIGSTOP)
    code, said = command.end()
    assert code == 0, said
    assert "was lost: it gave no result for 60 s" in said
    assert bits(command.summary()) == unbroken


STOP = {"model": {"mlp": {"hidden": [8]}}, "on_loss": "stop"}


@pytest.mark.ray
def test_an_agent_that_says_stop_ends_the_run_with_its_host(tmp_path, ray_session):
    fields = load(endless(SHORT))
    spec = parse({**fields, "agents": {"a": STOP, "b": STOP}})

    told, killed = [], []

    def listen(event):
        told.append(event)
        if event.kind == "progress" and not killed:
            killed.append(next(iter(ray_session.backend._hosts.values())))
            kill(killed[0])

    with pytest.raises(HostLost) as error:
        run_once(Request(spec, out=tmp_path / "runs", listeners=(listen,)), session=ray_session)
    assert error.value.exit_code == 1 and error.value.where in ("placement.host0", "placement.host1")
    assert "was lost" in error.value.what and "the last checkpoint" in error.value.instead
    lost, failed = [event for event in told if event.kind != "progress"][-2:]
    assert (lost.kind, failed.kind) == ("host_lost", "run_failed")
    assert lost.host in ("host0", "host1") and "was lost" in lost.error


@pytest.mark.slow  # without a process of its own above
def test_an_agent_that_says_stop_ends_the_command_with_its_host(tmp_path):
    command = Command(tmp_path, endless(SHORT).replace('"beside:Net"}', '"beside:Net", on_loss: stop}').replace(
        "b: {model: {mlp: {hidden: [8]}}}", "b: {model: {mlp: {hidden: [8]}}, on_loss: stop}"
    ))  # fmt: skip
    command.until("stage a")
    os.kill(workers(command)[0], signal.SIGKILL)
    code, said = command.end()
    assert code == 1, said
    assert "Traceback" not in said
    assert "placement.host" in said and "was lost" in said and "the last checkpoint" in said
    lost, failed = command.events()[-2:]
    assert (lost["event"], failed["event"]) == ("host_lost", "run_failed")
    assert lost["host"] in ("host0", "host1") and "was lost" in lost["error"]


@pytest.mark.slow  # a driver that dies is in test_chaos.py, too
def test_a_killed_driver_leaves_no_process_and_its_run_goes_on(tmp_path, unbroken):
    command = Command(tmp_path, LONG, "--checkpoint-seconds", "0.5")
    command.until("stage a")
    manifests = command.out.glob("*/*/checkpoints/a/0002/manifest.json")
    deadline = time.monotonic() + PATIENCE
    while not list(manifests):
        assert time.monotonic() < deadline and command.process.poll() is None
        time.sleep(0.02)
        manifests = command.out.glob("*/*/checkpoints/a/0002/manifest.json")
    command.process.kill()
    command.end()
    command.resume("--backend", "inline")
    code, said = command.end()
    assert code == 0, said
    assert bits(command.summary()) == unbroken


CLUSTER = """
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


def test_a_running_cluster_is_joined_and_stays(tmp_path, rays_folder):
    private = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2, "RAY_USAGE_STATS_ENABLED": "0"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",
        env={**os.environ, **private, "RAY_TMPDIR": rays_folder},
    )
    try:
        address = cluster.stdout.readline().strip()
        code, said = Command(tmp_path, SHORT, "--ray-address", address, **private).end()
        assert code == 0, said
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


GROWING = """
import sys
import torch
import kdmesh
from kdmesh.backends import Session
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse

x = torch.randn(48, 4)
data = kdmesh.data(*((x[rows], x[rows].argmax(1)) for rows in torch.arange(48).split([24, 12, 12])), classes=4)
first = kdmesh.Mesh(data=data, train={"steps": 1, "batch_size": 8})
first.agent("s", {"mlp": {"hidden": [4]}})
first.flow("labels", "s", objective="ce")
print(list(first.run(backend="ray", store="off", out=sys.argv[1]).summary["agents"]))

def mesh(count):
    agents = {f"a{number}": {"model": {"mlp": {"hidden": [4]}}} for number in range(count)}
    data, train = {"dataset": "digits", "train": 128}, {"epochs": 1}
    return parse({"data": data, "agents": agents, "train": train, "placement": "spread"})

with Session("ray") as session:
    print([len(run_once(Request(mesh(count)), session=session)[0]["agents"]) for count in (1, 3, 2)])
"""


@pytest.mark.slow  # some 30 s; other tests start runs in processes of their own
def test_the_first_thing_a_process_does_may_be_a_run_and_a_session_makes_room_for_a_larger_one(tmp_path):
    """Ray is not started before, as it is by the tests' own fixtures.

    The embedded Ray of a session is started for its first run's hosts, and anew for one that has more.
    """
    command = [sys.executable, "-c", GROWING, tmp_path]
    found = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE)
    assert found.stdout.splitlines()[-2:] == ["['s']", "[1, 3, 2]"], found.stderr
