"""`kdmesh` in processes of their own, for tests of what is left behind and what signals do."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 400.0  # seconds that a command may take on a busy machine; waits end on what they wait for
BESIDE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
"""


def processes(mark):
    """Pid and title of every process with a mark in its environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # ended meanwhile, or not ours
    return found


def listening(pids, folder):
    """Title and address of every TCP socket that these processes listen on, or others that have files of a folder open.

    Some of Ray's processes write a title over their environment, and a mark with it.
    """
    owners, rows = {}, {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A":
                raw = bytes.fromhex(local.partition(":")[0])
                words = struct.pack(f">{len(raw) // 4}I", *struct.unpack(f"<{len(raw) // 4}I", raw))
                rows[f"socket:[{inode}]"] = socket.inet_ntop(socket.AF_INET6 if len(raw) > 4 else socket.AF_INET, words)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or not ours
            opened = {os.readlink(descriptor) for descriptor in (process / "fd").iterdir()}
            if int(process.name) in pids or any(path.startswith(folder) for path in opened):
                owners[process] = opened
    titles = {one: (one / "cmdline").read_bytes().replace(b"\0", b" ").decode() for one in owners}
    return [(titles[one], rows[path]) for one, opened in owners.items() for path in opened & rows.keys()]


def kill(actor):
    """Kill an actor's process at once: a call that follows `ray.kill` may still be answered."""
    import ray

    os.kill(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


def kdmesh(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, from its beginning to its end."""
    command = [sys.executable, "-m", "kdmesh", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


def interrupt_and_resume(folder: Path, arguments: list[str], depth: str, number: int, whole: int) -> Path:
    """A `compare` or `sweep` that gets a signal once so many trials are whole, and is resumed; its folder.

    ``depth``: from its trials' folder to those of runs, as ``*/*``. That it says how to go on is asserted.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "kdmesh", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline, trials = time.monotonic() + PATIENCE, f"runs/*/*/trials/{depth}"
    while len(list(folder.glob(f"{trials}/results.json"))) < whole or not list(folder.glob(f"{trials}/checkpoints")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    (root,) = folder.glob("runs/*/*")
    if number != signal.SIGKILL:
        assert process.returncode == 130 and f"kdmesh resume {root.relative_to(folder)}" in said
    done = kdmesh(folder, "resume", str(root), "--quiet")
    while done.returncode == 2 and "another process" in done.stderr and time.monotonic() < deadline:
        time.sleep(0.2)  # a trial whose parent was killed writes its checkpoint before it ends
        done = kdmesh(folder, "resume", str(root), "--quiet")
    assert done.returncode == 0, done.stderr
    return root


class Command:
    """`kdmesh run` in a session of its own, in another folder than the mesh; its children are known by a mark."""

    def __init__(self, folder, text, *arguments, **environment):
        (folder / "mesh.yaml").write_text(text, encoding="utf-8")
        (folder / "beside.py").write_text(BESIDE, encoding="utf-8")
        self.out, self.shown = folder / "runs", folder / "shown.txt"  # shown: its tables
        self.start("run", str(folder / "mesh.yaml"), "--out", str(self.out), *arguments, **environment)

    def resume(self, *arguments, **environment):
        """Begin `kdmesh resume` with the one run's folder."""
        (folder,) = self.out.glob("*/*")
        self.start("resume", str(folder), *arguments, **environment)

    def start(self, *arguments, **environment):
        """Begin a command."""
        self.mark = f"KDMESH_TEST_MARK={uuid.uuid4().hex}"
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        name, _, value = self.mark.partition("=")
        with self.shown.open("w", encoding="utf-8") as shown:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kdmesh", *arguments],
                stdout=shown,
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
        left = list(Path(tempfile.gettempdir()).glob(f"kdmesh-{self.process.pid}-*"))
        assert not left, f"left behind: {left}"
        return self.process.returncode, said

    def processes(self):
        """Pid and title of every process with the mark."""
        return processes(self.mark)

    def summary(self):
        """The one run's summary."""
        (path,) = self.out.glob("*/*/summary.json")
        return json.loads(path.read_text(encoding="utf-8"))

    def events(self):
        (path,) = self.out.glob("*/*/events.jsonl")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
