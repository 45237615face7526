"""Publications that are too large for memory stay in the store, and are read as the steps come: to the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import host, mesh, run, said

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import RunFailed
from kdmesh.hosts.kept import KeptPublication, fetch, is_kept, refer
from kdmesh.hosts.publications import Key
from kdmesh.hosts.shelf import Shelf
from kdmesh.spec.read import parse
from kdmesh.store import EntryKey, Fingerprint, Store
from kdmesh.store.signals import write_signal
from kdmesh.streams.contents import digests

FLOWS = {
    "logits": {},
    "hidden": {"objective": "hint", "tap": {"of": "layers.0", "to": "layers.0"}},
    "top k": {"signal": {"top_k": {"k": 2}}},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 500 bytes, and 32 samples at a time, were much."""
    monkeypatch.setattr("kdmesh.hosts.stored.TABLES", 500)
    monkeypatch.setattr("kdmesh.hosts.stored.ROWS", 32)
    monkeypatch.setattr("kdmesh.hosts.kept.CHUNK", 500)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("form", ["exact", "int8"])
def test_a_publication_that_stays_has_the_same_bits(flow: str, form: str, tmp_path: Path, small: None) -> None:
    fields = {"flow": {**FLOWS[flow], "refresh": "once"}, "teacher": {"answers": {"form": form}}}
    without, cold, warm = (run(mesh(**fields), store) for store in ("off", tmp_path, tmp_path))
    assert said(without) == said(cold) == said(warm)
    assert warm["agents"]["t"]["forwards"]["made"] == 0
    assert cold["store"]["agents"]["t"]["written"] == 170 and warm["store"]["agents"]["t"]["found"] == 170


def test_readers_map_the_files(tmp_path: Path, small: None) -> None:
    for _ in range(2):  # cold and warm
        one = host(mesh(flow={"refresh": "once"}), tmp_path)
        one.config.near = True
        told = one.publish("t", "train", ("",))
        (packed,) = told.values()
        assert is_kept(packed)
        one.receive(told)
        found = one.publications.get(Key("t", "train"))
        assert isinstance(found, KeptPublication) and len(found.values) == 90
    one.config.near = False  # hosts elsewhere are sent the values
    assert not any(map(is_kept, one.publish("t", "train", ("",)).values()))


def test_a_consensus_of_such_publications(tmp_path: Path, small: None) -> None:
    def made() -> Any:
        made = mesh(flow={"refresh": "once"})
        made.agent("u", {"mlp": {"hidden": [20]}}, update="frozen", seed=2)
        made.consensus("c", "mean", history={"keep": "all", "sources": True})
        made._fields["flows"].pop()
        made.flow(["t", "u"], "c", refresh="once")
        made.flow("c", "s", objective="kl")
        return made

    without, cold, warm = (run(made(), store) for store in ("off", tmp_path, tmp_path))
    assert said(without) == said(cold) == said(warm)
    assert cold["store"]["histories"] == warm["store"]["histories"]


def test_a_store_without_the_rows_is_named(tmp_path: Path, small: None) -> None:
    one, other = (host(mesh(flow={"refresh": "once"}), tmp_path / name) for name in ("one", "other"))
    one.config.near = True
    with pytest.raises(RunFailed, match="lacks answers that another host has kept"):
        other.receive(one.publish("t", "train", ("",)))


def test_readers_have_the_bits_of_the_publisher(tmp_path: Path) -> None:
    """Where rows were computed twice, those of what the publisher computes on count, not of what the reader does."""
    shelf, key = Shelf(Store.open(tmp_path)), EntryKey({"weights": "one"}, {"output": ""})
    rows, here = digests(torch.arange(6.0).view(3, 2)), torch.get_num_threads()
    for threads in (here, here + 1):
        value = torch.full((3, 2), float(threads))
        write_signal(shelf.store.entry(key), rows, value, None, Fingerprint.here(threads=threads))
    for threads in (here, here + 1):
        packed = refer(key, rows, Fingerprint.here(threads=threads), {})
        assert torch.equal(fetch(shelf, packed).values, torch.full((3, 2), float(threads)))


@pytest.mark.ray
def test_hosts_of_one_machine_map_what_another_has_kept(tmp_path: Path, ray_session: Any) -> None:
    """A layer so wide that its answers are more than are held in memory."""
    fields = {**mesh()._fields, "data": "digits", "placement": "spread"}
    fields["streams"] = {"few": {"of": "train", "size": 1100}}
    fields["agents"]["t"]["model"] = {"mlp": {"hidden": [16000]}}
    fields["train"] = {**fields["train"], "epochs": 1}
    tap = {"of": "layers.0", "to": "layers.0"}
    fields["flows"] = [
        {"from": "labels", "to": "s", "objective": "ce", "stream": "few"},
        {"from": "t", "to": "s", "objective": "hint", "tap": tap, "refresh": "once", "stream": "few"},
    ]
    spec = parse(fields)
    without, _, _ = run_once(Request(spec, "inline", store="off"))
    for _ in range(2):
        summary, _, _ = run_once(Request(spec, store=str(tmp_path)), session=ray_session)
        assert said(summary) == said(without) and summary["store"]["not_kept"] == {}


def test_own_memory_does_not_grow_with_answers(tmp_path: Path) -> None:
    """RssAnon after a run from a store of 96 MiB of answers, and of 288 MiB: what is held is not what is read."""
    script = Path(__file__).with_name("resident_run.py")
    taken = {}
    for count in (3072, 9216):
        for _ in range(2):
            command = [sys.executable, str(script), str(tmp_path), str(count)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken[count] = int(out)
    assert taken[9216] - taken[3072] < 24 * 2**20, taken
