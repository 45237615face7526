"""Entries: what is written is found and read, by key, digest and fingerprint; everything else is a miss, and said."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from kdmesh.errors import MeshError
from kdmesh.store import EntryKey, Fingerprint, Store, default_root

HERE = Fingerprint.here()
THERE = replace(HERE, capability="another", threads=HERE.threads + 3)
OTHER = EntryKey({"weights": "abd"}, {})
KEY = EntryKey({"weights": "abc", "module": "m:Net"}, {"output": "", "form": "float32"})


def digests(*samples: object) -> torch.Tensor:
    found = [hashlib.sha256(str(one).encode()).digest()[:16] for one in samples]
    return torch.tensor([list(one) for one in found], dtype=torch.uint8).reshape(-1, 16)


def values(*samples: int, wide: int = 3) -> torch.Tensor:
    return torch.tensor([[one + column / 8 for column in range(wide)] for one in samples]).reshape(-1, wide)


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_rows_that_were_written_are_found_in_any_order_and_by_another_store(tmp_path):
    entry = Store.open(tmp_path / "store").entry(KEY)
    assert not entry.find(digests(1, 2), HERE).found.any() and files(tmp_path) == []
    assert entry.write(digests(*range(100)), {"values": values(*range(100))}, None, HERE) == 100
    for one in (entry, Store.open(tmp_path / "store").entry(KEY)):
        found = one.find(digests(7, "no", 99, 7), HERE)
        assert found.found.tolist() == [True, False, True, True]
        assert not found.foreign.any() and found.elsewhere == ()
        read, starts = one.read(digests(7, 99, 7))
        assert starts is None and torch.equal(read["values"], values(7, 99, 7))


def test_rows_of_another_fingerprint_are_found_and_said_and_its_own_preferred(tmp_path):
    entry = Store.open(tmp_path).entry(KEY)
    entry.write(digests(1, 2), {"values": values(1, 2)}, None, THERE)
    found = entry.find(digests(1, 2, 3), HERE)
    assert found.found.tolist() == found.foreign.tolist() == [True, True, False] and found.elsewhere == (THERE,)
    assert found.elsewhere[0].differs(HERE) == f"CPU instructions another, not {HERE.capability}, threads " + (
        f"{HERE.threads + 3}, not {HERE.threads}"
    )
    entry.write(digests(2, 3), {"values": values(22, 33)}, None, HERE)
    for _ in range(2):
        assert entry.find(digests(1, 2, 3), HERE).foreign.tolist() == [True, False, False]
        assert torch.equal(entry.read(digests(1, 2, 3))[0]["values"], values(1, 22, 33))
    assert entry.find(digests(1, 2, 3), THERE).foreign.tolist() == [False, False, True]
    assert torch.equal(entry.read(digests(1, 2, 3))[0]["values"], values(1, 2, 33))


def test_the_same_rows_in_any_order_are_the_same_file(tmp_path):
    for name, order in (("a", [1, 2, 3, 3]), ("b", [3, 1, 2])):
        Store.open(tmp_path / name).entry(KEY).write(digests(*order), {"values": values(*order)}, None, HERE)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    (shard,) = (tmp_path / "a").rglob("*.safetensors")
    assert hashlib.sha256(shard.read_bytes()).hexdigest() == shard.stem
    with safe_open(shard, "pt") as told:
        assert set(told.keys()) == {"rows", "values"} and json.loads(told.metadata()["kdmesh"])["entry"] == KEY.digest
        assert told.get_tensor("rows").view(torch.uint8).shape == (3, 16)
        assert torch.equal(told.get_tensor("values")[told.get_tensor("values")[:, 0].argsort()], values(1, 2, 3))


def test_rows_that_are_there_are_not_written_again(tmp_path):
    entry = Store.open(tmp_path).entry(KEY)
    assert entry.write(digests(1, 2), {"values": values(1, 2)}, None, HERE) == 2
    assert entry.write(digests(2, 1), {"values": values(2, 1)}, None, HERE) == 0
    assert entry.write(digests(2, 5), {"values": values(2, 5)}, None, HERE) == 1
    assert [len(one) for one in entry.shards] in ([2], [2, 1], [1, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (0,)])
def test_any_type_and_shape_comes_back_as_it_was(tmp_path, dtype, shape):
    entry = Store.open(tmp_path).entry(KEY)
    given = torch.randint(-2, 100, (6, *shape)).to(dtype)
    entry.write(digests(*range(6)), {"a": given, "b": given[:, None]}, None, HERE)
    entry.find(digests(1), HERE)
    read, _ = entry.read(digests(5, 0, 3))
    assert torch.equal(read["a"], given[[5, 0, 3]]) and torch.equal(read["b"], given[[5, 0, 3], None])
    assert read["a"].dtype is dtype
    (shard,) = tmp_path.rglob("*.safetensors")
    told = load_file(shard)  # as any program reads it
    order = told["rows"].view(torch.uint8).tolist()
    assert torch.equal(told["a"][[order.index(one) for one in digests(*range(6)).tolist()]], given)


def test_samples_of_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("kdmesh.store.entry.SHARD_BYTES", 64)
    entry = Store.open(tmp_path).entry(KEY)
    counts = torch.tensor([3, 0, 5, 1, 2])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    given = torch.arange(11.0)[:, None] * torch.tensor([[1.0, -1.0]])
    assert entry.write(digests(*range(5)), {"values": given}, starts, HERE) == 5
    assert entry.find(digests(*range(5)), HERE).found.all() and len(entry.shards) > 1
    read, begins = entry.read(digests(4, 2, 1, 0))
    assert begins is not None and begins.tolist() == [0, 2, 7, 7, 10]
    assert read["values"][:, 0].tolist() == [9, 10, 3, 4, 5, 6, 7, 0, 1, 2]


def test_much_is_written_as_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("kdmesh.store.entry.SHARD_BYTES", 120)
    entry = Store.open(tmp_path).entry(KEY)
    entry.write(digests(*range(95)), {"values": values(*range(95))}, None, HERE)
    assert entry.find(digests(*range(95)), HERE).found.all()
    assert [len(one) for one in entry.shards].count(10) == 9
    assert torch.equal(entry.read(digests(*range(94, -1, -1)))[0]["values"], values(*range(94, -1, -1)))


def test_digests_that_are_alike_in_their_first_half(tmp_path):
    rows = torch.zeros(5, 16, dtype=torch.uint8)
    rows[:, 15] = torch.arange(5)
    entry = Store.open(tmp_path).entry(KEY)
    entry.write(rows[:4], {"values": values(0, 1, 2, 3)}, None, HERE)
    assert entry.find(rows, HERE).found.tolist() == [True] * 4 + [False]
    assert torch.equal(entry.read(rows[[3, 1]])[0]["values"], values(3, 1))


def test_another_key_is_another_entry(tmp_path):
    store = Store.open(tmp_path)
    store.entry(KEY).write(digests(1), {"values": values(1)}, None, HERE)
    for other in (
        EntryKey({**KEY.producer, "weights": "abd"}, KEY.signal),
        EntryKey(KEY.producer, {**KEY.signal, "form": "float16"}),
        EntryKey({**KEY.producer, "view": None}, KEY.signal),
    ):
        assert not store.entry(other).find(digests(1), HERE).found.any()
    assert store.entry(EntryKey(dict(reversed(KEY.producer.items())), KEY.signal)) is store.entry(KEY)


def test_keys_tell_apart_whatever_json_does():
    keys = [EntryKey({"a": value}, {}) for value in (1, 1.0, True, "1", None, [1], [1.0], {"b": 1}, 0, False, "", [])]
    assert len({key.digest for key in keys}) == len(keys)
    assert EntryKey({"a": (1, 2)}, {}) == EntryKey({"a": [1, 2]}, {})
    for value in (float("nan"), float("inf"), {1: 2}, b"x", torch.zeros(1)):
        with pytest.raises(MeshError):
            EntryKey({"a": value}, {})


def test_what_does_not_belong_together_is_refused(tmp_path):
    entry = Store.open(tmp_path).entry(KEY)
    for rows, given, starts in (
        (digests(1), {"values": values(1, 2)}, None),
        (digests(1), {}, None),
        (digests(1), {"rows": values(1)}, None),
        (digests(1)[:, :8], {"values": values(1)}, None),
        (digests(1), {"values": values(1, 2)}, torch.tensor([0, 1])),
        (digests(1), {"values": values(1, 2)}, torch.tensor([1, 2])),
        (digests(1), {"values": torch.zeros(1, 2, dtype=torch.complex64)}, None),
    ):
        with pytest.raises(ValueError):
            entry.write(rows, given, starts, HERE)
    entry.write(digests(1), {"values": values(1)}, None, HERE)
    with pytest.raises(MeshError, match="two kinds under one key"):
        entry.write(digests(2), {"values": values(2).half()}, None, HERE)
    with pytest.raises(KeyError, match="1 of 2 rows"):
        entry.read(digests(1, 2))


def test_nothing_found_reads_as_nothing(tmp_path):
    entry = Store.open(tmp_path).entry(KEY)
    assert entry.find(digests(), HERE).found.shape == (0,) and entry.read(digests()) == ({}, None)
    entry.write(digests(1), {"values": values(1)}, None, HERE)
    entry.find(digests(), HERE)
    read, starts = entry.read(digests())
    assert read["values"].shape == (0, 3) and starts is None


def test_where_the_store_is(monkeypatch, tmp_path):
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path))
    assert default_root() == str(tmp_path)
    monkeypatch.setenv("KDMESH_STORE", "off")
    assert default_root() is None
    monkeypatch.delenv("KDMESH_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "kdmesh" / "store"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_root() == tmp_path / "home" / ".cache" / "kdmesh" / "store"


def test_a_user_without_a_home_has_no_store(monkeypatch):
    for name in ("KDMESH_STORE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert default_root() is None
    with pytest.raises(MeshError, match="no cache folder"):
        Store.open("memory://x")


SETTINGS = {
    "pass": "",
    "torch.set_float32_matmul_precision('medium')": "matmul medium",
    "os.environ['ONEDNN_MAX_CPU_ISA'] = 'AVX2'": "ONEDNN_MAX_CPU_ISA=AVX2",
    "torch.use_deterministic_algorithms(True)": "deterministic",
    "torch.backends.mkldnn.enabled = False": "no mkldnn",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'": "mkldnn.matmul bf16",  # hides the first one
}


def test_a_fingerprint_tells_of_settings_that_choose_kernels():
    lines = ["import os, torch", "from kdmesh.store import Fingerprint"]
    for code in SETTINGS:
        lines += [code, "print(Fingerprint.here().settings)"]
    lines.append("print(Fingerprint.here(threads=3).threads, Fingerprint.here('meta').device)")
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    *told, last = done.stdout.splitlines()
    assert last == "3 meta" and told[0] == "", done.stderr
    assert [said in line for said, line in zip(SETTINGS.values(), told, strict=True)] == [True] * len(SETTINGS)


@pytest.mark.parametrize("field", ["version", "build", "capability", "threads", "device", "name", "settings"])
def test_each_part_of_a_fingerprint_makes_it_another(field):
    other = replace(HERE, **{field: 99 if field == "threads" else "x"})
    assert other != HERE and other.digest != HERE.digest and other.differs(HERE)
    assert Fingerprint.of(json.loads(json.dumps(other.record()))) == other


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for where in (tmp_path / "file", "", "a\0b"):
        with pytest.raises(MeshError):
            Store.open(where)
    with pytest.raises(MeshError, match="limit"):
        Store.open(tmp_path, limit_bytes=0)


@pytest.mark.parametrize("many", [False, True])
def test_many_small_shards_become_one(tmp_path, many):
    store = Store.open(tmp_path)
    entry, reader = store.entry(KEY), Store.open(tmp_path).entry(KEY)
    for one in range(200):
        rows, starts = ([one, one], torch.tensor([0, 2])) if many else ([one], None)
        about = {"seconds": float(one), "errors": {"values": one / 7}, "by": "x"}
        ids = torch.tensor([one + 1000])
        entry.write(digests(one), {"values": values(*rows)}, starts, HERE, ids=ids, about=about)
        if one == 20:
            assert reader.find(digests(*range(21)), HERE).found.all() and len(reader.shards) == 21
    assert len([*tmp_path.rglob("shards/*")]) < 40 and [*store.verify()] == [] and store.notes == []
    for one in (entry, reader, Store.open(tmp_path).entry(KEY)):
        assert one.find(digests(*range(200)), HERE).found.all()
        read, begins = one.read(digests(199, 3, 77))
        assert torch.equal(read["values"], values(*([199, 199, 3, 3, 77, 77] if many else [199, 3, 77])))
        assert (begins is None) is not many
    fresh = Store.open(tmp_path).entry(KEY)
    fresh.refresh()
    told = sum(shard.about["seconds"] * len(shard) for shard in fresh.shards) / 200
    assert told == pytest.approx(99.5) and max(one.about["errors"]["values"] for one in fresh.shards) == 199 / 7
    assert sorted(number for one in fresh.shards for number in one.ids.tolist()) == [*range(1000, 1200)]


def test_shards_that_are_not_alike_or_large_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("kdmesh.store.entry.SHARD_BYTES", 12_000)
    store = Store.open(tmp_path)
    for one in range(40):
        fingerprint, round = (HERE, THERE)[one % 2], one % 4 // 2
        store.entry(KEY).write(digests(one), {"values": values(one)}, None, fingerprint, round=round)
        store.entry(OTHER).write(digests(*range(40 * one, 40 * one + 40)), {"values": torch.ones(40, 20)}, None, HERE)
    assert [len([*store.entry(key).folder.glob("shards/*")]) for key in (KEY, OTHER)] == [40, 40]
    for round in (0, 1):
        assert int(store.entry(KEY).find(digests(*range(40)), HERE, round).found.sum()) == 20


def test_rows_that_change_in_place_are_other_rows(tmp_path):
    entry = Store.open(tmp_path).entry(KEY)
    entry.write(digests(1, 2), {"values": values(1, 2)}, None, HERE)
    rows = digests(1, 2)
    assert entry.find(rows, HERE).found.all() and torch.equal(entry.read(rows)[0]["values"], values(1, 2))
    rows.copy_(digests(2, 3))
    with pytest.raises(KeyError):
        entry.read(rows)
    assert entry.find(rows, HERE).found.tolist() == [True, False]
    entry.write(digests(3), {"values": values(3)}, None, HERE)
    assert entry.find(rows, HERE).found.all() and torch.equal(entry.read(rows)[0]["values"], values(2, 3))
    assert entry.find(rows, THERE).foreign.all()
