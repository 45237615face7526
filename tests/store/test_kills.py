"""Several processes at once, and processes that are killed: what a store has is right, whoever wrote it and how far."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_damage import filled
from test_entries import HERE, KEY, digests, values

from kdmesh.cli import main
from kdmesh.store import Store, exporting

SCRIPT = Path(__file__).parent / "doomed_writers.py"
TWO = """
import os, sys, torch
sys.path[:0] = {path!r}
from test_entries import HERE, KEY, digests, values
from kdmesh.store import Store, entry
entry.SHARD_BYTES = 200
os.fsync = lambda number: None
child = os.fork()
store = Store.open(sys.argv[1])
for first in range(0, 60, 4):
    one = store.entry(KEY)
    samples = [*range(first, first + 8)]
    one.write(digests(*samples), dict(values=values(*samples)), None, HERE)
    found = one.find(digests(*samples), HERE)
    assert found.found.all() and torch.equal(one.read(digests(*samples))[0]["values"], values(*samples))
assert store.notes == [], store.notes
assert not child or os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_whatever_killed_writers_leave_is_right(tmp_path, kills):
    command = [sys.executable, SCRIPT, tmp_path, str(kills), "7", *(["quick"] if kills == 20 else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["kills"] == kills == len(told["rows"]) and max(told["rows"]) > 0


@pytest.mark.parametrize("files", range(5))
def test_an_export_that_is_killed_leaves_a_store_and_goes_on(files, tmp_path, monkeypatch, capsys):
    """Killed as it copies each of its files in turn, half of which is written."""
    for samples in ([1, 2], [3], [4, 5, 6]):
        filled(tmp_path / "from", *samples)
    line = ["store", "export", KEY.digest[:12], str(tmp_path / "to"), "--store", str(tmp_path / "from")]
    copied, real = [], exporting.aside

    @contextmanager
    def deadly(path):
        with real(path) as draft:
            yield draft
            if len(copied) == files:
                os.truncate(draft, draft.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            copied.append(path)

    if not (child := os.fork()):
        monkeypatch.setattr(exporting, "aside", deadly)
        os._exit(main(line))
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) if files < 4 else status == 0  # a card and three shards
    every, to = [*range(1, 7)], Store.open(tmp_path / "to")
    assert [one for one in to.verify() if not one.harmless] == []
    there = to.entry(KEY).find(digests(*every), HERE).found
    known = [one for one, hit in zip(every, there.tolist(), strict=True) if hit]
    assert bool(known) == (files > 1)
    assert not known or torch.equal(to.entry(KEY).read(digests(*known))[0]["values"], values(*known))
    to.close()
    assert main(line) == 0 and "6 rows of" in capsys.readouterr().out
    to.prune(10**9)
    assert to.entry(KEY).find(digests(*every), HERE).found.all()
    assert [*to.verify()] == [*Store.open(tmp_path / "from").verify()] == []


def test_what_is_merged_while_it_is_exported_is_whole(tmp_path, monkeypatch):
    filled(tmp_path / "from", 1, 2)
    store, real = Store.open(tmp_path / "from"), exporting.aside

    def merged(path):
        monkeypatch.setattr(exporting, "aside", real)
        for shard in (tmp_path / "from").rglob("shards/*.safetensors"):
            shard.unlink()
        return real(path)

    monkeypatch.setattr(exporting, "aside", merged)
    assert store.export(KEY, tmp_path / "to") == 2
    assert [*Store.open(tmp_path / "to").verify()] == []


def test_two_writers_at_once_lose_nothing(tmp_path):
    script = TWO.format(path=[str(Path(__file__).parent)])
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    entry, every = Store.open(tmp_path).entry(KEY), [*range(64)]
    assert entry.find(digests(*every), HERE).found.all() and [*Store.open(tmp_path).verify()] == []
    assert torch.equal(entry.read(digests(*every))[0]["values"], values(*every))


READ_AND_PRUNE = """
import os, sys, torch
sys.path[:0] = {path!r}
from test_entries import HERE, KEY, digests, values
from kdmesh.store import Store, merging
merging.MANY = 3
os.fsync = lambda number: None
every = [*range(60)]
if not (child := os.fork()):
    for turn in range(60):
        store = Store.open(sys.argv[1])
        samples = every[turn % 7 :: 7]
        store.entry(KEY).write(digests(*samples), dict(values=values(*samples)), None, HERE)
        store.close()
        if turn % 5 == 0:
            store.prune(0)
    os._exit(0)
reads, alive = 0, True
while alive:  # and once more when it has ended
    alive = os.waitpid(child, os.WNOHANG) == (0, 0)
    store = Store.open(sys.argv[1])
    entry = store.entry(KEY)
    for _ in range(3):
        found = entry.find(digests(*every), HERE).found.tolist()
        known = [one for one, hit in zip(every, found) if hit]
        assert not known or torch.equal(entry.read(digests(*known))[0]["values"], values(*known))
        reads += len(known)
    assert store.notes == [], store.notes
    store.close()
assert reads and [*Store.open(sys.argv[1]).verify()] == []
"""


def test_readers_are_right_while_another_process_writes_merges_and_prunes(tmp_path):
    script = READ_AND_PRUNE.format(path=[str(Path(__file__).parent)])
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_writers_of_the_same_rows_write_one_file(tmp_path):
    one, other = Store.open(tmp_path).entry(KEY), Store.open(tmp_path).entry(KEY)
    other.find(digests(1), HERE)  # both have looked, and found nothing
    real, other.refresh = other.refresh, lambda: None
    for entry in (one, other):
        assert entry.write(digests(1, 2), {"values": values(1, 2)}, None, HERE) == 2
    other.refresh = real
    assert len([*tmp_path.rglob("shards/*")]) == 1
    assert other.find(digests(2), HERE).found.all()


def test_a_reader_sees_what_others_write_later(tmp_path):
    reader = Store.open(tmp_path).entry(KEY)
    assert not reader.find(digests(1), HERE).found.any()
    filled(tmp_path, 1)
    assert reader.find(digests(1), HERE).found.all()


def test_a_shard_that_another_process_merges_while_it_is_opened_is_no_fault(tmp_path, monkeypatch):
    filled(tmp_path, 1)
    real = torch.from_file

    def merged(name, **settings):  # its size was just asked for: another process makes one of this one and its own
        monkeypatch.setattr(torch, "from_file", real)
        filled(tmp_path, 1, 2)
        Path(name).unlink()
        return real(name, **settings)

    monkeypatch.setattr(torch, "from_file", merged)
    store = Store.open(tmp_path)
    entry = store.entry(KEY)
    entry.find(digests(1), HERE)
    assert store.notes == []
