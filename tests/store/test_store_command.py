"""`kdmesh store`: what is kept, what it says of a sample, what is damaged; and what goes, or is taken elsewhere."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from pathlib import Path

import pytest
import torch
from test_damage import filled, only
from test_entries import HERE, KEY, THERE, digests

from kdmesh.cli import main
from kdmesh.signals.sparse import TopKLogits
from kdmesh.store import EntryKey, Store, forms
from kdmesh.store.signals import write_signal, write_texts

NAMED = EntryKey(
    {"recipe": 1, "weights": "f" * 64, "view": [{"name": "flip", "settings": {"p": 0.5}}], "precision": "float32"},
    {"output": "layers.3", "made": {"name": "top_k", "settings": {"k": 4}, "code": "e" * 64}},
)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "store"
    store = Store.open(root)
    entry = store.entry(NAMED, {"agent": "wide", "mesh": "three"})
    logits = torch.arange(24.0).reshape(2, 12)
    write_signal(entry, digests(1, 2), TopKLogits.top(logits, 4), None, HERE, ids=torch.tensor([17, 18]))
    write_signal(entry, digests(1, 3), TopKLogits.top(logits + 0.5, 4), None, THERE, ids=torch.tensor([17, 1]))
    filled(root, 1, 2, 3)
    return root


def run(capsys, *words):
    code = main(["store", *map(str, words)])
    out, err = capsys.readouterr()
    wide = [line for line in out.splitlines() if len(line) > 80 and " " in line.strip()]  # a path stays whole
    assert not wide or "--json" in words, out
    return code, out, err


def test_the_list_says_who_asked_for_what_and_how_large_it_is(root, capsys):
    code, out, _ = run(capsys, "ls", "--store", root)
    assert code == 0 and "2 entries" in out and "three/wide" in out and NAMED.digest[:12] in out
    assert " 4 " in out and "top_k k=4 layers.3" in " ".join(out.split()) and re.search(r"\d+ s\b", out)
    told = json.loads(run(capsys, "ls", "--store", root, "--json")[1])
    assert {one["digest"]: (one["rows"], one["shards"]) for one in told} == {NAMED.digest: (4, 2), KEY.digest: (3, 1)}
    (named,) = (one for one in told if one["info"])
    assert named["producer"] == dict(NAMED.producer) and named["bytes"] > 0 and named["fault"] == ""


def test_the_environment_says_where_it_is(root, capsys, monkeypatch):
    monkeypatch.setenv("KDMESH_STORE", str(root))
    assert run(capsys, "ls")[0] == 0
    monkeypatch.setenv("KDMESH_STORE", "off")
    code, _, said = run(capsys, "ls")
    assert code == 2 and "switched off" in said
    code, _, said = run(capsys, "ls", "--store", root / "none")
    assert code == 2 and "there is no store yet" in said and not (root / "none").exists()


def test_an_entry_is_shown_with_its_key_and_shards(root, capsys):
    code, out, _ = run(capsys, "show", NAMED.digest[:6], "--store", root)
    words = " ".join(out.split())
    assert code == 0 and "weights: ffff" in words and "output: layers.3" in words and "2 shards" in out
    assert "columns 12" in words and "torch" in words
    told = json.loads(run(capsys, "show", NAMED.digest, "--store", root, "--json")[1])
    assert [one["rows"] for one in told["files"]] == [2, 2] and told["files"][0]["signal"]["kind"] == "top_k"


@pytest.mark.parametrize("word", ["", "zz", "0" * 12, KEY.digest + "0"])
def test_a_name_of_no_entry_is_answered_with_those_there_are(root, capsys, word):
    code, _, said = run(capsys, "show", word, "--store", root)
    assert code == 2 and "KEY: no entry begins with" in said and KEY.digest[:12] in said


def test_a_sample_is_shown_by_everyone_who_answered_it(root, capsys):
    code, out, _ = run(capsys, "show", NAMED.digest[:8], "--sample", 17, "--store", root)
    assert code == 0 and out.count("three/wide of sample 17, on") == 2 and "index" in out and "11 10 9 8" in out
    told = json.loads(run(capsys, "show", NAMED.digest[:8], "--sample", 17, "--store", root, "--json")[1])
    assert [one["values"]["index"] for one in told] == [[11, 10, 9, 8]] * 2 and told[0]["round"] is None
    digest = told[0]["digest"]
    assert (
        json.loads(run(capsys, "show", NAMED.digest[:8], "--sample", digest[:9], "--store", root, "--json")[1]) == told
    )
    code, _, said = run(capsys, "show", NAMED.digest[:8], "--sample", 99, "--store", root)
    assert code == 2 and "no sample 99" in said


def test_what_one_machine_computed_names_it_once(root, capsys):
    entry = Store.open(root).entry(EntryKey({"a": 3}, {}))
    for view in (8, 9):
        write_signal(entry, digests(view), torch.ones(1, 2), None, HERE, ids=torch.tensor([9]))
    code, out, _ = run(capsys, "show", entry.key.digest, "--sample", 9, "--store", root)
    assert code == 0 and out.count("it of sample 9\n") == 2 and out.count("torch") == 1 and "all computed on" in out


def test_a_sample_of_a_form_and_of_many_rows_is_shown_as_values(root, capsys):
    key = EntryKey({"a": 1}, {"form": "int8"})
    rows = torch.linspace(-1, 1, 60).reshape(3, 20)
    write_signal(
        Store.open(root).entry(key),
        digests("t"),
        rows,
        torch.tensor([0, 3]),
        HERE,
        form=forms.INT8,
        ids=torch.tensor([5]),
    )
    told = json.loads(run(capsys, "show", key.digest, "--sample", 5, "--store", root, "--json")[1])
    assert torch.allclose(torch.tensor(told[0]["values"]["dense"]), rows, atol=0.002)
    assert "... 8 more" in run(capsys, "show", key.digest, "--sample", 5, "--store", root)[1]
    assert "error" in run(capsys, "show", key.digest, "--store", root)[1]


def test_a_text_is_shown_without_what_a_terminal_obeys(root, capsys):
    key = EntryKey({"a": 2}, {})
    write_texts(
        Store.open(root).entry(key), digests("t"), ["an \x1b[2J answer\nof two lines"], HERE, ids=torch.tensor([5])
    )
    code, out, _ = run(capsys, "show", key.digest, "--sample", 5, "--store", root)
    assert code == 0 and "an \\x1b[2J answer" in out and "of two lines" in out
    told = json.loads(run(capsys, "show", key.digest, "--sample", 5, "--store", root, "--json")[1])
    assert told[0]["values"] == {"text": "an \x1b[2J answer\nof two lines"}


def test_verify_names_what_is_damaged_and_fails(root, capsys):
    assert run(capsys, "verify", "--store", root)[:2] == (0, "3 shards read: all as they were written\n")
    shard = only(root / "v1" / KEY.digest[:2] / KEY.digest)
    shard.write_bytes(shard.read_bytes()[:-1])
    code, out, _ = run(capsys, "verify", "--store", root)
    assert code == 1 and "1 file damaged" in out and max(map(len, out.splitlines())) <= 80
    named = out.split(": ")[0]  # as a shell finds it
    assert [*root.glob(named)] == [shard]
    assert json.loads(run(capsys, "verify", "--store", root, "--json")[1])[0]["harmless"] is False


def test_an_entry_of_a_newer_version_asks_for_that_version(root, capsys):
    card = root / "v1" / KEY.digest[:2] / KEY.digest / "entry.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "format": 2}))
    code, _, said = run(capsys, "show", KEY.digest[:8], "--store", root)
    assert code == 2 and "a newer version of kdmesh wrote it" in said and "instead: the version of kdmesh" in said


def test_a_folder_that_cannot_be_written_is_not_pruned_and_named(root, capsys, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "rename", refuse)
    code, _, said = run(capsys, "prune", "--keep-bytes", 0, "--store", root)
    assert code == 2 and "cannot prune" in said and "instead: make this disk writable" in said


def test_prune_deletes_what_was_used_longest_ago(root, capsys):
    os.utime(root / "v1" / KEY.digest[:2] / KEY.digest / "used", (time.time() - 10**6,) * 2)
    code, out, _ = run(capsys, "prune", "--keep-bytes", "3kB", "--store", root)
    assert code == 0 and KEY.digest[:12] in out and NAMED.digest[:12] not in out and "left" in out
    reader = Store.open(root)
    reader.entry(NAMED).find(digests(1), HERE)
    assert "in use by other processes" in run(capsys, "prune", "--keep-bytes", 0, "--store", root)[1]
    reader.close()
    assert "0 B left" in run(capsys, "prune", "--keep-bytes", 0, "--store", root)[1]


@pytest.mark.parametrize("word", ["", "-1", "1.5", "5X", "lots"])
def test_an_amount_that_is_none_is_refused(root, capsys, word):
    with pytest.raises(SystemExit):
        main(["store", "prune", f"--keep-bytes={word}", "--store", str(root)])
    assert "no amount of bytes" in capsys.readouterr().err


def test_an_export_is_a_store_of_its_own(root, capsys, tmp_path):
    for _ in range(2):
        code, out, _ = run(capsys, "export", NAMED.digest[:6], tmp_path / "other", "--store", root)
        assert code == 0 and out.startswith("4 rows of")
    there = Store.open(tmp_path / "other")
    assert there.entry(NAMED).find(digests(1, 2, 3), HERE).found.all() and [*there.verify()] == []
    assert [one.digest for one in there.entries()] == [NAMED.digest]
    (tmp_path / "file").write_text("")
    assert run(capsys, "export", NAMED.digest[:6], tmp_path / "file", "--store", root)[0] == 2


def test_a_damaged_card_is_named(root, capsys):
    (root / "v1" / KEY.digest[:2] / KEY.digest / "entry.json").write_text("{")
    assert "not what was written" in " ".join(run(capsys, "ls", "--store", root)[1].split())
    for action in (["show", KEY.digest], ["export", KEY.digest, root / "x"]):
        code, _, said = run(capsys, *action, "--store", root)
        assert code == 2 and "cannot be read: entry.json is not what was written" in said
