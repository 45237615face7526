"""How soon an interrupted run is gone: Ctrl-C to every bundled topology on Ray, each agent on a host of its own.

`kdmesh run NAME --set placement=spread` gets a SIGINT once its first stage trains: 0.1 to 0.6 s after that began, drawn
by a seed. Seconds from there until it has written its checkpoints and its process and all that it started are gone; the
bound is 10 s. Then `kdmesh resume` must go on. Run: ``python benchmarks/pause.py [NAME ...]``.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from kdmesh.spec.read import bundled

BOUND, PATIENCE = 10.0, 120.0  # seconds
MARK = "KDMESH_PAUSE_MARK"


def alive(mark: str) -> bool:
    """Whether a process has this mark in its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                return True
        except OSError:  # ended meanwhile
            continue
    return False


def start(mark: str, *arguments: str) -> subprocess.Popen[str]:
    """Begin a command; what it starts is known by the mark."""
    command = [sys.executable, "-m", "kdmesh", *arguments, "--quiet"]
    environment = {**os.environ, MARK: mark}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)


def gone(process: subprocess.Popen[str], mark: str, since: float) -> float:
    """Wait for the end of a command and of all that it started; seconds."""
    process.communicate(timeout=PATIENCE)
    while alive(mark) and time.monotonic() - since < PATIENCE:
        time.sleep(0.02)
    return time.monotonic() - since


def pause(name: str, out: Path, delay: float) -> str:
    """Interrupt a run, and let it go on; a line."""
    mark = uuid.uuid4().hex
    process = start(mark, "run", name, "--set", "placement=spread", "--out", str(out))
    while not any("stage_started" in path.read_text() for path in out.glob("*/*/events.jsonl")):
        if process.poll() is not None:
            return f"{name:24}ended with {process.returncode} before it trained: {process.communicate()[1]}  MISS"
        time.sleep(0.02)
    time.sleep(delay)
    since = time.monotonic()
    process.send_signal(signal.SIGINT)
    taken, code = gone(process, mark, since), process.returncode
    if code == 0:
        return f"{name:24}{delay:8.2f}{'':10}it was done by then"
    (folder,) = out.glob("*/*")
    kept = len(list(folder.glob("checkpoints/*/*/manifest.json")))
    again = start(mark, "resume", str(folder))
    gone(again, mark, time.monotonic())
    met = code == 130 and taken <= BOUND and again.returncode == 0
    return f"{name:24}{delay:8.2f}{taken:10.2f}{code:8}{kept:13}{again.returncode:9}" + ("" if met else "  MISS")


def lines(names: list[str]) -> Iterator[str]:
    """A line for each topology."""
    yield f"{'topology':24}{'after':>8}{'gone in':>10}{'code':>8}{'checkpoints':>13}{'resumed':>9}"
    draw = random.Random(0)
    for name in names:
        delay = draw.uniform(0.1, 0.6)
        with tempfile.TemporaryDirectory() as out:
            yield pause(name, Path(out), delay)


def main() -> None:
    """Print every line."""
    options = argparse.ArgumentParser()
    options.add_argument("names", nargs="*", default=sorted(bundled()), help="bundled topologies (default: all)")
    for line in lines(options.parse_args().names):
        print(line, flush=True)


if __name__ == "__main__":
    main()
