"""Bad stores: each fault is named, its rows are a miss and computed again, and no wrong value is ever read."""

from __future__ import annotations

import errno
import json
import os
import resource
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from test_entries import HERE, KEY, THERE, digests, values

from kdmesh.errors import RunFailed
from kdmesh.store import EntryKey, Store
from kdmesh.store.signals import read_signal, write_signal

OTHER = EntryKey({"weights": "other"}, KEY.signal)


def filled(root, *samples, key=KEY, fingerprint=HERE):
    store = Store.open(root)
    store.entry(key).write(digests(*samples), {"values": values(*samples)}, None, fingerprint)
    return store


def found(root, *samples, key=KEY):
    """Which samples a fresh store finds, all that it reads of them being right, and what it noticed."""
    store = Store.open(root)
    entry = store.entry(key)
    there = entry.find(digests(*samples), HERE).found.tolist()
    known = [one for one, hit in zip(samples, there, strict=True) if hit]
    if known:
        assert torch.equal(entry.read(digests(*known))[0]["values"], values(*known))
    return known, store.notes


def only(root, pattern="shards/*"):
    (path,) = root.rglob(pattern)
    return path


def test_any_flipped_byte_is_found_and_never_read(tmp_path):
    filled(tmp_path, 1, 2, 3)
    assert [*Store.open(tmp_path).verify()] == []
    for path in (only(tmp_path), only(tmp_path, "entry.json")):
        whole = path.read_bytes()
        for at in range(len(whole)):
            for bit in (at % 8,):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
                assert [one.path.endswith(path.name) for one in Store.open(tmp_path).verify()] == [True], (
                    path,
                    at,
                    bit,
                )
        path.write_bytes(whole)
    shard = only(tmp_path)
    whole = shard.read_bytes()
    for at in range(0, len(whole), 37):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert found(tmp_path, 1, 2, 3)[0] == []
        only(tmp_path, "set-aside/*").unlink()
    shard.write_bytes(whole)
    assert found(tmp_path, 1, 2, 3)[0] == [1, 2, 3]


@pytest.mark.parametrize("length", [0, 5, 8, 60, -1])
def test_a_truncated_shard_is_set_aside_and_its_rows_written_again(tmp_path, length):
    filled(tmp_path, 1, 2)
    filled(tmp_path, 3)
    shard = max(tmp_path.rglob("shards/*"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:length])
    known, notes = found(tmp_path, 1, 2, 3)
    assert known == [3] and "damaged and was set aside" in notes[0] and "computed again" in notes[0]
    assert [one.harmless for one in Store.open(tmp_path).verify()] == [True]
    filled(tmp_path, 1, 2)
    assert found(tmp_path, 1, 2, 3) == ([1, 2, 3], [])


def test_a_damaged_shard_that_cannot_be_moved_is_replaced(tmp_path, monkeypatch):
    filled(tmp_path, 1, 2)
    only(tmp_path).write_bytes(b"x" * 100)
    (only(tmp_path).parent.parent / "set-aside").write_text("in the way")
    entry = (store := Store.open(tmp_path)).entry(KEY)
    assert not entry.find(digests(1, 2), HERE).found.any() and len(store.notes) == 1
    assert entry.write(digests(1, 2), {"values": values(1, 2)}, None, HERE) == 2
    assert entry.find(digests(1, 2), HERE).found.all()
    assert found(tmp_path, 1, 2) == ([1, 2], [])


def test_a_shard_of_another_entry_is_not_read(tmp_path):
    filled(tmp_path, 1)
    filled(tmp_path, 1, 2, key=OTHER)
    (stranger,) = Store.open(tmp_path).entry(OTHER).folder.glob("shards/*")
    stranger.rename(only(Store.open(tmp_path).entry(KEY).folder).parent / stranger.name)
    assert ["is of another entry" in one.what for one in Store.open(tmp_path).verify()] == [True]
    known, notes = found(tmp_path, 1, 2)
    assert known == [1] and "of another entry" in notes[0]


def forged(root, **changes):
    """Replace the shard by one of which something is not as this version writes it, under its right name."""
    shard = only(root)
    tensors = load(shard.read_bytes())
    size = int.from_bytes(shard.read_bytes()[:8], "little")
    about = json.loads(json.loads(shard.read_bytes()[8 : 8 + size])["__metadata__"]["kdmesh"])
    changed = {name: one for name, one in ({**tensors, **changes}).items() if isinstance(one, torch.Tensor)}
    about |= {name: one for name, one in changes.items() if not isinstance(one, torch.Tensor)}
    content = save(changed, {"kdmesh": json.dumps(about)})
    shard.unlink()
    from hashlib import sha256

    (shard.parent / f"{sha256(content).hexdigest()}.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": {"threads": "many"}},
        {"fingerprint": None},
        {"entry": None},
        {"format": "1"},
        {"rows": torch.zeros(2, 3, dtype=torch.int64)},
        {"values": torch.zeros(3, 3)},
        {"starts": torch.tensor([0, 2, 1])},
        {"starts": torch.tensor([0, -4, 2])},
        {"starts": torch.tensor([0, 2])},
        {"more": torch.zeros(2, dtype=torch.complex64)},
        {"round": "one"},
        {"shared": {"file": 3, "is": ""}},
        {"shared": {"file": "../../entry.json", "is": ""}},
        {"shared": []},
        {"signal": {"kind": "dense"}},
        {"signal": {"kind": "dense", "form": "exact", "types": {"dense": "F128"}}},
        {"signal": {"kind": "dense", "form": "exact", "types": {}, "optional": 3}},
    ],
    ids=lambda one: next(iter(one)),
)
def test_a_shard_that_says_odd_things_is_no_shard(tmp_path, changes):
    filled(tmp_path, 1, 2)
    forged(tmp_path, **changes)
    assert len([*Store.open(tmp_path).verify()]) == 1
    known, notes = found(tmp_path, 1, 2)
    assert known == [] and "set aside" in notes[0]


def test_what_a_newer_version_wrote_is_left_alone(tmp_path):
    filled(tmp_path, 1, 2)
    forged(tmp_path, format=2)
    before = only(tmp_path).read_bytes()
    known, notes = found(tmp_path, 1, 2)
    assert known == [] and "a newer version of kdmesh wrote a shard" in notes[0]
    assert ["newer version" in one.what for one in Store.open(tmp_path).verify()] == [True]
    filled(tmp_path, 1, 2)
    assert found(tmp_path, 1, 2)[0] == [1, 2] and before in [path.read_bytes() for path in tmp_path.rglob("shards/*")]


def test_nothing_is_added_to_an_entry_of_a_newer_version(tmp_path):
    filled(tmp_path, 1)
    card = only(tmp_path, "entry.json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "format": 2}))
    store = filled(tmp_path, 2)
    assert "a newer version of kdmesh wrote it (format 2); what can be read of it is used" in store.notes[0]
    known, notes = found(tmp_path, 1, 2)
    assert known == [1] and notes == store.notes  # who only reads is told, too
    assert "newer version" in next(Store.open(tmp_path).entries()).fault


def test_the_layout_of_another_version_stands_beside_ours(tmp_path):
    (tmp_path / "v2" / "entries").mkdir(parents=True)
    filled(tmp_path, 1)
    assert found(tmp_path, 1)[0] == [1] and [one.shards for one in Store.open(tmp_path).entries()] == [1]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', '{"format": "a"}', "\udcff", "[" * 5000])
def test_a_damaged_card_is_named_and_written_again(tmp_path, text):
    filled(tmp_path, 1)
    card = only(tmp_path, "entry.json")
    card.write_bytes(text.encode("utf-8", "surrogateescape"))
    (told,) = Store.open(tmp_path).entries()
    assert told.key is None and "not what was written" in told.fault and told.digest == KEY.digest
    assert found(tmp_path, 1) == ([1], [])
    filled(tmp_path, 2)
    (told,) = Store.open(tmp_path).entries()
    assert told.key == KEY and not told.fault and [*Store.open(tmp_path).verify()] == []


def test_a_full_disk_costs_nothing_but_what_is_new(tmp_path):
    filled(tmp_path, 1)
    store = Store.open(tmp_path)
    entry = store.entry(KEY)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard[1]))
    try:
        assert entry.write(digests(*range(500)), {"values": values(*range(500))}, None, HERE) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, hard)
    assert len(store.notes) == 1 and "cannot be written" in store.notes[0] and "ulimit" in store.notes[0]
    assert entry.write(digests(5), {"values": values(5)}, None, HERE) == 0  # it tries no more
    assert found(tmp_path, 1, 2) == ([1], []) and [*Store.open(tmp_path).verify()] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_a_folder_that_cannot_be_written_is_read(tmp_path, monkeypatch, number):
    filled(tmp_path, 1)

    def refused(*_args, **_more):
        raise OSError(number, os.strerror(number))

    for name in ("mkdir", "rename", "replace", "utime", "open"):
        monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr("pathlib.Path.mkdir", refused)
    monkeypatch.setattr("pathlib.Path.replace", refused)
    monkeypatch.setattr("pathlib.Path.touch", refused)
    monkeypatch.setattr("pathlib.Path.write_bytes", refused)
    store = Store.open(tmp_path)
    entry = store.entry(KEY)
    assert entry.find(digests(1, 2), HERE).found.tolist() == [True, False]
    assert entry.write(digests(2), {"values": values(2)}, None, HERE) == 0
    assert torch.equal(entry.read(digests(1))[0]["values"], values(1))
    assert len(store.notes) == 1 and os.strerror(number) in store.notes[0]
    monkeypatch.undo()
    assert found(tmp_path, 1, 2) == ([1], []) and not [*tmp_path.rglob("*.part")]


def test_a_store_that_belongs_to_others_is_read(tmp_path):
    """By a process without the right to write there; nobody may, if it is of root that tests run."""
    import shutil
    import tempfile

    root = Path(tempfile.mkdtemp())
    try:
        filled(root, 1)
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if not (child := os.fork()):
            code = 1
            try:
                if os.geteuid() == 0:
                    os.setgid(65534), os.setuid(65534)
                assert found(root, 1, 2) == ([1], [])
                store = filled(root, 2)
                assert len(store.notes) == 1 and "give the right to write there" in store.notes[0]
                assert found(root, 1, 2) == ([1], []) and [*store.verify()] == []
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(root)


def test_values_that_their_codec_cannot_restore_are_named(tmp_path):
    store = Store.open(tmp_path)
    signal = {"kind": "top_k", "form": "exact", "types": {}}
    store.entry(KEY).write(digests(1), {"values": values(1)}, None, HERE, signal=signal)
    for kind in ("top_k", "gone.plugin:Kind"):
        key = EntryKey({"kind": kind}, {})
        store.entry(key).write(digests(1), {"values": values(1)}, None, HERE, signal={**signal, "kind": kind})
        store.entry(key).find(digests(1), HERE)
        with pytest.raises(RunFailed, match=f"restored as {kind}|signal of kind {kind}"):
            read_signal(store.entry(key), digests(1))


def test_a_clock_that_jumps_changes_nothing_but_what_goes_first(tmp_path):
    old, new = filled(tmp_path, 1), filled(tmp_path, 2, key=OTHER)
    used = {one.digest: tmp_path / "v1" / one.digest[:2] / one.digest / "used" for one in old.entries()}
    for when in (0, time.time() + 10**8):
        os.utime(used[KEY.digest], (when, when))
        assert found(tmp_path, 1) == ([1], [])
        assert abs(used[KEY.digest].stat().st_mtime - time.time()) < 3600  # set right by being used
    os.utime(used[KEY.digest], (time.time() + 10**8,) * 2)
    os.utime(used[OTHER.digest], (0, 0))
    old.close(), new.close()
    assert [one.digest for one in Store.open(tmp_path).prune(1000)] == [OTHER.digest]


def test_verify_tells_two_answers_of_one_sample(tmp_path):
    filled(tmp_path / "a", 1, 2, 3)
    two = Store.open(tmp_path / "b")
    two.entry(KEY).write(digests(2, 4), {"values": values(7, 4)}, None, HERE)
    two.entry(KEY).write(digests(1), {"values": values(9)}, None, THERE)
    for path in (tmp_path / "b").rglob("shards/*"):
        path.rename(only(tmp_path / "a", f"{KEY.digest}/shards") / path.name)
    (fault,) = Store.open(tmp_path / "a").verify()
    assert "answers some samples otherwise" in fault.what and not fault.harmless


def test_what_is_not_of_a_store_is_told(tmp_path):
    filled(tmp_path, 1)
    write_signal(Store.open(tmp_path).entry(OTHER), digests(1), values(1), None, HERE)
    for name, harmless in (("shards/notes.txt", False), (".12345678.part", True), ("shards/.12345678.part", True)):
        (tmp_path / "v1" / KEY.digest[:2] / KEY.digest / name).write_text("x")
        (fault,) = Store.open(tmp_path).verify()
        assert fault.path.endswith(name) and fault.harmless is harmless
        (tmp_path / fault.path).unlink()
    (tmp_path / "v1" / KEY.digest[:2] / KEY.digest / "entry.json").unlink()
    (fault,) = Store.open(tmp_path).verify()
    assert fault.what == "is missing" and fault.path.endswith("entry.json")
