"""Who else can reach a local run: nobody over a network, and no other user of this machine by its files."""

from __future__ import annotations

import signal
import stat
import sys
from pathlib import Path

import pytest
from commands import Command, listening

MESH = """
name: private
data: digits
agents: {a: {model: {mlp: {hidden: [8]}}}, b: {model: {mlp: {hidden: [8]}}}}
connect: [{mutual: {peers: [a, b]}}]
train: {epochs: 100000}
placement: spread
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds sockets in /proc")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A run with a TMPDIR of 100 characters: what its processes listen on, and the modes on the way to their files."""
    folder = tmp_path_factory.mktemp("private")
    temporary = folder / ("t" * (100 - len(str(folder)) - 1))
    temporary.mkdir()
    command = Command(folder, MESH, TMPDIR=str(temporary))
    command.until("stage a")
    (room,) = Path("/tmp").glob(f"kdmesh-{command.process.pid}-*")
    bound = listening(command.processes(), str(room))
    mode, sockets = stat.S_IMODE(room.stat().st_mode), [path for path in room.rglob("*") if path.is_socket()]
    command.process.send_signal(signal.SIGINT)
    code, said = command.end()
    left = [path for place in ("/tmp", temporary) for path in Path(place).glob(f"kdmesh-{command.process.pid}-*")]
    return {"bound": bound, "mode": mode, "sockets": len(sockets), "code": code, "said": said, "left": left}


def test_a_long_tmpdir_is_no_obstacle(found):
    assert found["code"] == 130 and "go on with: kdmesh resume" in found["said"], found["said"]
    assert found["left"] == []


def test_every_process_listens_on_this_machine_alone(found):
    titles = {title for title, _ in found["bound"]}
    for part in ("gcs_server", "raylet", "ray::RuntimeEnvAgent", "ray::Worker", "-m kdmesh"):
        assert any(part in title for title in titles), (part, titles)
    assert {address for _, address in found["bound"]} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, found["bound"]


def test_no_other_user_comes_to_its_sockets_and_logs(found):
    assert found["mode"] == 0o700 and found["sockets"] >= 2
