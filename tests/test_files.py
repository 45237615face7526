"""Files are whole or as they were, JSON is JSON, and no name leads out of a folder."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from kdmesh import files
from kdmesh.errors import MeshError


@pytest.mark.parametrize("broken", ["write_bytes", "replace"])
def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch, broken):
    path = tmp_path / "a.json"
    files.write(path, "before")

    def full(draft, *_):
        with draft.open("ab") as half:
            half.write(b"hal")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, broken, full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, "after")
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.json"]


def test_content_and_its_folder_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append(os.readlink(f"/proc/self/fd/{number}")), sync(number)))
    monkeypatch.setattr(Path, "replace", lambda draft, path: (done.append("rename"), replace(draft, path))[1])
    files.write(tmp_path / "a", b"x")
    assert [Path(name).suffix or name for name in done] == [files.DRAFT, "rename", str(tmp_path)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"loss": math.nan, "all": [math.inf, -math.inf, 1.5]}, {"loss": None, "all": [None, None, 1.5]}),
        ({1: Path("a"), "s": "\ud800é"}, {"1": "a", "s": "\ud800é"}),
    ],
)
def test_json_is_what_every_reader_takes(tmp_path, value, said):
    files.write_json(tmp_path / "a.json", value)

    def refuse(word):
        raise AssertionError(word)

    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=refuse) == said


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "out", "out/x", "a\0b", "circle/x"]
)
def test_no_name_leads_outside(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "circle").symlink_to(root / "circle")
    with pytest.raises(MeshError, match="outside"):
        files.inside(root, name)
    with pytest.raises(MeshError, match="outside"):
        files.write_all(root, {name: b"x"})
    assert sorted(os.listdir(tmp_path)) == ["root"]


@pytest.mark.parametrize("name", ["a", "a/b.json", "...", "party[0]", "Zoë", "home/x"])
def test_plain_names_stay_inside(tmp_path, name):
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")
    files.write_all(tmp_path, {name: b"x", "nothing": None})
    assert files.inside(tmp_path, name).read_bytes() == b"x" and not (tmp_path / "nothing").exists()
