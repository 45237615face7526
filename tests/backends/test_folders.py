"""Where the embedded Ray's folder is made: short, closed to others, with room; or what to set."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from kdmesh.backends import folders
from kdmesh.errors import RunFailed

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    """One usual place, empty; nothing in the environment. Yields the place, whose path is short."""
    short = tempfile.mkdtemp(dir="/tmp", prefix="u")
    monkeypatch.setattr(folders, "USUAL", (short,))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    tell(monkeypatch, "TMPDIR", short)
    yield short
    shutil.rmtree(short)


def tell(monkeypatch, name, folder):
    """Set a variable as if it had been set when this process began."""
    monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)


def made(folder, characters):
    """A new folder below one, with a path of so many characters."""
    path = Path(folder, "x" * (characters - len(str(folder)) - 1))
    path.mkdir()
    assert len(str(path)) == characters
    return str(path)


def parent(folder):
    """Where a folder was made, once it is seen to be a good one, and is gone again."""
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    longest = (
        Path(folders.inner(folder)) / f"session_2026-11-29_02-00-03_699923_{os.getpid()}" / "sockets" / "plasma_store"
    )
    assert len(os.fsencode(longest)) <= folders.SOCKET and os.listdir(folder) == ["r"]
    assert Path(folder).name.startswith(f"kdmesh-{os.getpid()}-")
    shutil.rmtree(folder)
    return os.path.dirname(folder)


@pytest.mark.parametrize("characters", [37, 49, 100])
def test_a_folder_whose_path_is_too_long_for_sockets_gives_way_to_a_usual_one(usual, monkeypatch, characters):
    tell(monkeypatch, "TMPDIR", made(usual, characters))
    assert parent(folders.new_folder_for_ray()) == usual


def test_the_longest_path_that_does_is_taken(usual, monkeypatch):
    fits = made(usual, folders.longest())
    tell(monkeypatch, "TMPDIR", fits)
    assert parent(folders.new_folder_for_ray()) == fits


def test_characters_of_several_bytes_count_as_such(usual, monkeypatch):
    wide = Path(usual, "é" * (folders.longest() - len(usual) - 1))
    wide.mkdir()
    tell(monkeypatch, "TMPDIR", wide)
    assert parent(folders.new_folder_for_ray()) == usual


def test_rays_own_variable_comes_first(usual, monkeypatch):
    own = made(usual, len(usual) + 2)
    tell(monkeypatch, "RAY_TMPDIR", own)
    assert parent(folders.new_folder_for_ray()) == own


def test_a_relative_folder_is_one_of_the_working_folder(usual, monkeypatch):
    monkeypatch.chdir(usual)
    os.mkdir("t")
    tell(monkeypatch, "RAY_TMPDIR", "t")
    assert parent(folders.new_folder_for_ray()) == os.path.join(usual, "t")


def test_a_disk_without_room_and_a_folder_that_cannot_be_used_give_way(usual, monkeypatch):
    tiny, full = made(usual, len(usual) + 2), shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**20, 0, 2**20) if path == tiny else full(path))
    for folder in (tiny, f"{usual}/x", __file__):
        tell(monkeypatch, "RAY_TMPDIR", folder)
        assert parent(folders.new_folder_for_ray()) == usual


def test_where_none_is_fit_each_is_named_with_why_and_what_to_set(usual, monkeypatch):
    monkeypatch.setattr(folders, "USUAL", (f"{usual}/x", usual))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: os.stat(path) and Usage(2**20, 0, 2**20))
    long = made(usual, 60)
    tell(monkeypatch, "TMPDIR", long)
    with pytest.raises(RunFailed) as caught:
        folders.new_folder_for_ray()
    error = caught.value
    assert (error.exit_code, error.where) == (1, "TMPDIR")
    assert f"{long}: its path has 60 characters, and sockets in it leave room for {folders.longest()}" in error.what
    assert f"{usual}/x: no such file or directory" in error.what
    assert f"{usual}: 1.0 MB free, and 64 are needed" in error.what
    assert "TMPDIR=/a/folder" in error.instead and "--backend inline" in error.instead
    assert os.listdir(usual) == [os.path.basename(long)]


@pytest.mark.skipif(sys.platform != "linux", reason="writes where nothing can be made")
def test_a_folder_that_cannot_be_written_is_named(monkeypatch):
    monkeypatch.setattr(folders, "USUAL", ("/proc",))
    monkeypatch.setattr(folders, "_named", lambda: [])
    monkeypatch.setattr(folders, "_unfit", lambda parent: "")
    with pytest.raises(RunFailed, match="/proc: no such file or directory"):
        folders.new_folder_for_ray()
