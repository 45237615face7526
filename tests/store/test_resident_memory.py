"""A reader's own memory does not grow with the store, but for what it knows of each shard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "resident_memory.py"
OF_A_SHARD = 8 * 1024
"""Bytes of a reader's own memory for each shard, at most; about 3 KiB were measured.

Shards of less than 16 MiB are merged, so that 100 GB are at most 6,400 of them, for which this is 50 MB, and mostly of
64 MiB, 1,600, for which it is 13 MB. Nothing else of a store is in a process's own memory: rows are searched in the
mapped files, and of values only what is asked for is copied.
"""


def test_own_memory_is_of_shards_and_not_of_their_bytes(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, "4", "96"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    few, many = json.loads(done.stdout).values()
    assert many - few < 92 * OF_A_SHARD  # of 92 MiB more
