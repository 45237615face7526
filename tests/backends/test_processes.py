from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdmesh.backends.processes import MARK, marked, new_mark, sweep

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")

WAIT = [sys.executable, "-c", "print('up', flush=True); input()"]


def start() -> subprocess.Popen[str]:
    child = subprocess.Popen(WAIT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    return child


def test_only_what_carries_the_mark_is_swept():
    mark = new_mark()
    with marked(mark):
        inside = start()
    outside = start()
    try:
        assert MARK not in os.environ
        assert sweep(new_mark()) == []
        assert sweep(mark) == [inside.pid]
        assert inside.wait() == -9 and outside.poll() is None
    finally:
        for child in (inside, outside):
            child.kill()
            child.communicate()
