"""A store at a URL: whole files come and go, what is half sent is not taken, and what fails is said."""

from __future__ import annotations

import fsspec
import pytest
import torch
from test_entries import HERE, KEY, digests, values

from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.signals.lazy import FactoredLogits
from kdmesh.store import Store, remote
from kdmesh.store.signals import read_signal, write_signal

URL = "memory://answers/here"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Says on which of several machines, with caches of their own, we are."""
    fsspec.filesystem("memory").store.clear()
    monkeypatch.setattr(remote, "AGAIN", -1.0)

    def be(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return Store.open(URL)

    yield be
    fsspec.filesystem("memory").store.clear()


def at_url():
    return fsspec.filesystem("memory").store


def read(store, *samples):
    entry = store.entry(KEY)
    found = entry.find(digests(*samples), HERE).found
    known = [one for one, hit in zip(samples, found.tolist(), strict=True) if hit]
    if known:
        assert torch.equal(entry.read(digests(*known))[0]["values"], values(*known))
    return known


def test_what_one_machine_wrote_another_reads_and_adds_to(machine):
    one = machine("one")
    assert read(one, 1) == [] and not at_url()
    one.entry(KEY, {"agent": "wide"}).write(digests(1, 2), {"values": values(1, 2)}, None, HERE)
    two = machine("two")
    assert read(two, 1, 2, 3) == [1, 2]
    assert two.entry(KEY).write(digests(2, 3), {"values": values(2, 3)}, None, HERE) == 1
    assert read(one, 1, 2, 3) == [1, 2, 3] and one.notes == two.notes == []
    (told,) = machine("three").entries()
    assert (told.key, told.info, told.rows, told.shards) == (KEY, {"agent": "wide"}, 3, 2)
    assert [*one.verify()] == []


@pytest.mark.parametrize("url", ["memory://me:k-12345@answers/here", "memory://answers/here?sig=k-12345"])
def test_what_may_be_a_key_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(MeshError, match="would be written to notes and files") as error:
        Store.open(url)
    assert "k-12345" not in str(error.value)


def test_layers_come_with_their_rows(machine):
    value = FactoredLogits(torch.randn(2, 4), torch.randn(30, 4))
    write_signal(machine("one").entry(KEY), digests(1, 2), value, None, HERE)
    entry = machine("two").entry(KEY)
    assert entry.find(digests(2), HERE).found.all()
    back, _ = read_signal(entry, digests(2))
    assert isinstance(back, FactoredLogits) and torch.equal(back.hidden, value.hidden[1:])
    assert torch.equal(back.weight, value.weight)


def test_what_is_half_sent_or_damaged_is_not_taken(machine):
    one = machine("one")
    one.entry(KEY).write(digests(1), {"values": values(1)}, None, HERE)
    (name,) = (name for name in at_url() if "shards" in name)
    whole = at_url()[name].getvalue()
    fsspec.filesystem("memory").pipe_file(name, whole[:-5])
    two = machine("two")
    assert read(two, 1) == [] and two.notes == [] and not [*two.path.rglob("shards/*")]
    assert "its bytes are not" in next(two.verify()).what
    fsspec.filesystem("memory").pipe_file(name, whole)
    assert read(two, 1) == [1]
    fsspec.filesystem("memory").pipe_file(name, whole[:-5])
    assert two.entry(KEY).write(digests(9), {"values": values(9)}, None, HERE) == 1  # sends what is short there, too
    assert at_url()[name].getvalue() == whole and [*two.verify()] == []


def test_names_that_lead_elsewhere_are_not_fetched(machine, tmp_path):
    machine("one").entry(KEY).write(digests(1), {"values": values(1)}, None, HERE)
    base = f"/answers/here/v1/{KEY.digest[:2]}/{KEY.digest}"
    for name in ("shards/../../../../evil.safetensors", "shards/evil", "lock", "shards/a/b.safetensors"):
        fsspec.filesystem("memory").store[f"{base}/{name}"] = at_url()[f"{base}/entry.json"]
    two = machine("two")
    assert read(two, 1) == [1]
    names = {path.name for path in two.path.rglob("*") if path.is_file()}
    assert {"entry.json"} <= names and not names & {"evil", "evil.safetensors", "b.safetensors"}


def test_a_place_that_fails_costs_nothing_and_is_said(machine, monkeypatch):
    store = machine("one")
    store.entry(KEY).write(digests(1), {"values": values(1)}, None, HERE)

    def failing(*_args, **_more):
        raise ConnectionError("the network is down\nat line 3")

    for name in ("find", "put_file", "cat_file", "get_file"):
        monkeypatch.setattr(fsspec.filesystem("memory"), name, failing, raising=False)
    assert read(store, 1, 2) == [1]
    assert store.entry(KEY).write(digests(2), {"values": values(2)}, None, HERE) == 1
    assert read(store, 1, 2) == [1, 2] and len(store.notes) == 2
    assert all(note.endswith("ConnectionError: the network is down") for note in store.notes)
    with pytest.raises(MeshError, match="network is down"):
        next(store.entries())
    assert "network is down" in next(store.verify()).what


def test_commands_at_a_url(machine, capsys, tmp_path):
    machine("one").entry(KEY).write(digests(1), {"values": values(1)}, None, HERE, ids=torch.tensor([7]))
    machine("two")
    assert main(["store", "ls", "--store", URL]) == 0 and KEY.digest[:12] in capsys.readouterr().out
    assert main(["store", "show", KEY.digest[:8], "--sample", "7", "--store", URL]) == 0
    assert "it of sample 7" in capsys.readouterr().out
    assert main(["store", "export", KEY.digest[:8], str(tmp_path / "out"), "--store", URL]) == 0
    assert main(["store", "prune", "--keep-bytes", "0", "--store", URL]) == 2
    assert "not deleted from here" in capsys.readouterr().err
    assert Store.open(tmp_path / "out").entry(KEY).find(digests(1), HERE).found.all()


@pytest.mark.parametrize("url", ["nothing://x/y", "s3://user:secret@bucket/x", "://x"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(MeshError) as caught:
        Store.open(url)
    assert "secret" not in str(caught.value)
