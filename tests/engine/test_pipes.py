"""A named pipe where a file of a run or a model should be is no file: nobody waits for what it may say."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kdmesh.engine import dropping, sums
from kdmesh.errors import MeshError
from kdmesh.hosts import checkpoint
from kdmesh.hosts.export import TOKEN, sees
from kdmesh.text.sizes import sizes
from kdmesh.text.source import licence_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Raise in whoever waits for a pipe."""

    def waited(*given: Any) -> None:
        raise AssertionError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


CASES: dict[str, tuple[str, Callable[[Path], Any], Any]] = {
    "a model's settings": ("config.json", lambda root: sizes(SimpleNamespace(path=str(root), config={})), (None, None)),
    "a model's card": ("README.md", lambda root: licence_of(str(root)), None),
    "sums": ("sums.json", sums.told, {}),
    "a token": (TOKEN, lambda root: sees("host0", str(root), "token"), False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pipe_is_as_no_file(name: str, tmp_path: Path) -> None:
    file, read, given = CASES[name]
    os.mkfifo(tmp_path / file)
    assert read(tmp_path) == given


def test_a_pipe_in_place_of_what_a_run_dropped_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / dropping.FILE)
    with pytest.raises(MeshError, match="is a named pipe"):
        dropping.read(tmp_path)


@pytest.mark.parametrize("which", [0, 1])
def test_a_pipe_in_a_checkpoint_is_refused(which: int, tmp_path: Path) -> None:
    host: Any = SimpleNamespace(name="host0")
    names = checkpoint.part_names("host0")
    checkpoint.save_file({}, tmp_path / names[0])
    (tmp_path / names[1]).write_text("{}")
    (tmp_path / names[which]).unlink()
    os.mkfifo(tmp_path / names[which])
    with pytest.raises(OSError, match="is a named pipe"):
        checkpoint.load(host, "s", str(tmp_path))
