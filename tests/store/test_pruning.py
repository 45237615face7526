"""The limit: what was used longest ago goes first, never what is in use, and a reader keeps what it has found."""

from __future__ import annotations

import os
import time

import torch
from test_damage import OTHER, filled, found
from test_entries import HERE, KEY, digests, values

from kdmesh.store import EntryKey, Store

THIRD = EntryKey({"weights": "third"}, KEY.signal)


def used(root, key, ago):
    folder = root / "v1" / key.digest[:2] / key.digest
    os.utime(folder / "used", (time.time() - ago,) * 2)


def sizes(root):
    return {one.digest: one.size for one in Store.open(root).entries()}


def three(root):
    for key, ago in ((KEY, 3e6), (OTHER, 2e6), (THIRD, 1e6)):
        filled(root, 1, 2, key=key).close()
        used(root, key, ago)


def test_what_was_used_longest_ago_goes_first(tmp_path):
    three(tmp_path)
    found(tmp_path, 1)  # notes its use
    before = sizes(tmp_path)
    gone = Store.open(tmp_path).prune(before[KEY.digest] + before[THIRD.digest])
    assert [(one.digest, one.size) for one in gone] == [(OTHER.digest, before[OTHER.digest])]
    assert found(tmp_path, 1, 2) == ([1, 2], []) and found(tmp_path, 1, key=OTHER) == ([], [])
    assert [one.digest for one in Store.open(tmp_path).prune(0)] == [THIRD.digest, KEY.digest]
    assert sizes(tmp_path) == {} and Store.open(tmp_path).prune(0) == []


def test_what_is_in_use_stays(tmp_path):
    three(tmp_path)
    reader = Store.open(tmp_path)
    assert reader.entry(KEY).find(digests(1), HERE).found.all()
    assert {one.digest for one in Store.open(tmp_path).prune(0)} == {OTHER.digest, THIRD.digest}
    assert {*sizes(tmp_path)} == {KEY.digest}
    reader.close()
    assert [one.digest for one in Store.open(tmp_path).prune(0)] == [KEY.digest]


def test_a_reader_keeps_what_it_found_whoever_deletes_the_folder(tmp_path):
    store = filled(tmp_path, 1, 2)
    entry = store.entry(KEY)
    assert entry.find(digests(1, 2), HERE).found.all()
    entry._unlock()  # as where a file system has no locks
    Store.open(tmp_path).prune(0)
    assert torch.equal(entry.read(digests(2, 1))[0]["values"], values(2, 1))
    assert entry.write(digests(3), {"values": values(3)}, None, HERE) == 1
    assert found(tmp_path, 1, 2, 3) == ([3], [])


def test_writing_keeps_to_the_limit(tmp_path):
    limit = 5000
    store = Store.open(tmp_path, limit_bytes=limit)
    for number in range(12):
        key = EntryKey({"number": number}, {})
        assert store.entry(key).write(digests(*range(20)), {"values": values(*range(20))}, None, HERE) == 20
        store.close()
        used(tmp_path, key, 1000 - number)
    assert 2 <= len(sizes(tmp_path)) <= 5 and sum(sizes(tmp_path).values()) <= limit + 1500
    assert EntryKey({"number": 11}, {}).digest in sizes(tmp_path) and store.notes == []


def test_what_does_not_fit_beside_what_is_in_use_is_not_kept_and_said(tmp_path):
    store = Store.open(tmp_path, limit_bytes=4000)
    entry = store.entry(KEY)
    kept = [entry.write(digests(one), {"values": values(one)}, None, HERE) for one in range(9)]
    assert kept[0] == 1 and kept[-1] == 0 and sorted(kept, reverse=True) == kept
    assert store.notes == ["the store is full: its limit of 4000 bytes is in use, so new rows are not kept"]
    assert entry.find(digests(0), HERE).found.all() and found(tmp_path, *range(9))[0] == [*range(sum(kept))]


def test_pruning_removes_what_killed_processes_left(tmp_path):
    three(tmp_path)
    folder = tmp_path / "v1" / KEY.digest[:2] / KEY.digest
    (folder / ".12345678.part").write_text("x" * 100)
    (folder / "shards" / ".12345678.part").write_text("x" * 100)
    (folder.parent / ".gone-1234").mkdir()
    (folder.parent / ".gone-1234" / "file").write_text("x")
    assert len([*Store.open(tmp_path).verify()]) == 3
    assert Store.open(tmp_path).prune(10**9) == []
    assert [*Store.open(tmp_path).verify()] == [] and len(sizes(tmp_path)) == 3
