"""A disk that is full at any write of a run: it is told plainly, and `kdmesh resume` ends with the same weights."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kdmesh import files
from kdmesh.cli import main
from kdmesh.engine import events, experiment
from kdmesh.engine.folder import Folder
from kdmesh.engine.launch import told
from kdmesh.engine.request import Request
from kdmesh.files import remedy
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MESH = """\
name: m
data: {dataset: digits, train: 64, test: 32}
agents: {t: {model: {mlp: {hidden: [4]}}}, s: {model: {mlp: {hidden: [4]}}}}
flows: [{from: labels, to: [t, s], objective: ce}, {from: t, to: s, objective: kl}]
train: {epochs: 2, batch_size: 32}
"""


class Disk:
    """Counts what is written: files that are synced, folders too, and lines of the log. ``full_at``: that one fails."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full_at, self.writes = "", list[str]()
        sync, line = files._sync, events.Events._write

        def counted_sync(path: Path) -> None:
            self.count(path)
            sync(path)

        def counted_line(log: events.Events, text: str) -> None:
            real, log._file = log._file, self.Full(self, log._file)  # type: ignore[assignment]
            try:
                line(log, text)
            finally:
                log._file = real if log._file is not None else None

        patch.setattr(files, "_sync", counted_sync)
        patch.setattr(events.Events, "_write", counted_line)

    def count(self, path: Any) -> None:
        parts = str(path).partition("/m/")[2].split("/")[1:]
        name = "/".join(part for part in parts if not part.endswith(files.DRAFT)) + f":{len(self.writes)}"
        self.writes.append(name)
        if name == self.full_at:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    class Full:
        def __init__(self, disk: Disk, file: Any) -> None:
            self.disk, self.file, self.name = disk, file, file.name

        def write(self, text: str) -> None:
            self.disk.count(self.name)
            self.file.write(text)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    with monkeypatch.context() as patch:
        yield Disk(patch)


def begin(home: Path, name: str) -> tuple[int, Path]:
    (home / "mesh.yaml").write_text(MESH, encoding="utf-8")
    code = main(["run", str(home / "mesh.yaml"), "--backend", "inline", "--quiet", "--out", str(home / name)])
    (root,) = (home / name / "m").iterdir()
    return code, root


def weights(root: Path) -> dict[str, str]:
    summary = json.loads((root / "summary.json").read_text(encoding="utf-8"))
    return {name: facts["weights_sha256"] for name, facts in summary["agents"].items()}


def everything(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def goes_on(home: Path, disk: Disk, at: str, capsys: pytest.CaptureFixture[str], right: dict[str, str]) -> None:
    """Fill the disk at one write; the message is plain, and resume gives the right weights."""
    disk.full_at = at
    disk.writes.clear()
    code, root = begin(home, at.replace("/", "-").replace(":", "-"))
    said = capsys.readouterr().err
    assert code == 1, at
    assert "No space left on device" in said and "free disk space" in said, at
    for odd in ("Traceback", "Errno", "OSError", "the run failed", str(home / "mesh.yaml")):
        assert odd not in said, (at, said)
    disk.full_at = ""
    if "then run again" in said:
        assert int(at.rpartition(":")[2]) <= 5, at
        return
    assert f"kdmesh resume {root}" in said.splitlines()[-1], at
    code = main(["resume", str(root), "--quiet"])
    said = capsys.readouterr().err
    assert code == 0 or (code == 2 and "this run has finished" in said), (at, said)
    assert weights(root) == right, at


@pytest.fixture
def whole(tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    code, root = begin(tmp_path, "whole")
    assert code == 0
    capsys.readouterr()
    return weights(root)


KINDS = ("checkpoints/s/0001/hosts", "agents/s/.draft", "agents/s", "events.jsonl")


def test_a_disk_that_is_full_at_a_write_loses_nothing(
    tmp_path: Path, disk: Disk, whole: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = list(disk.writes)
    last = [next(name for name in reversed(seen) if name.rpartition(":")[0] == kind) for kind in KINDS]
    for at in [*last, seen[0], seen[-2], seen[-1]]:
        goes_on(tmp_path, disk, at, capsys, whole)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write_loses_nothing(
    tmp_path: Path, disk: Disk, whole: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = list(disk.writes)
    assert len(seen) > 60
    for at in seen:
        goes_on(tmp_path, disk, at, capsys, whole)


def test_of_two_resumes_at_once_one_makes_the_rest_and_the_other_says_that_it_is_finished(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, "whole")
    disk.full_at = next(name for name in reversed(disk.writes) if name.startswith("agents/s:"))
    disk.writes.clear()
    _, root = begin(tmp_path, "cut")
    capsys.readouterr()
    disk.full_at, held, codes = "", experiment.held, list[int]()

    def overtaken(path: Path) -> Any:
        """Let another process resume the run after this one has looked at it, and before it holds it."""
        monkeypatch.setattr(experiment, "held", held)
        codes.append(main(["resume", str(path), "--quiet"]))
        codes.append(len(everything(root)))
        stood.update(everything(root))
        return held(path)

    stood: dict[str, str] = {}
    monkeypatch.setattr(experiment, "held", overtaken)
    assert main(["resume", str(root), "--quiet"]) == 2
    assert codes[0] == 0
    assert "this run has finished" in capsys.readouterr().err
    assert everything(root) == stood


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "free disk space"),
        (OSError(errno.EFBIG, "x"), "ulimit -f"),
        (OSError(errno.EROFS, "x"), "writable"),
        (ValueError("No space left on device (os error 28)"), "free disk space"),
        (OSError(errno.ENOENT, "x"), ""),
        (ValueError("x"), ""),
    ],
)
def test_what_to_do_about_a_disk_is_said(error: Exception, said: str) -> None:
    assert said in remedy(error) and bool(said) == bool(remedy(error))


def raised(work: Callable[[], Any]) -> Exception:
    with pytest.raises(OSError) as caught:
        work()
    return caught.value


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_what_could_not_be_read_is_not_called_unwritten(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, folder = Request(parse(load(MESH))), Folder.make(tmp_path / "run")
    opened = Path.open

    def refused(path: Path, *args: Any, **options: Any) -> Any:
        if path.name in ("weights", "summary.json") or path.name.endswith(files.DRAFT):
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refused)
    (tmp_path / "weights").touch()
    read = str(told(raised(lambda: files.sha256(tmp_path / "weights")), request, folder))
    assert "written" not in read and "give the right to write" not in read
    assert "the run failed in refused (test_full_disk.py, line " in read and f"{tmp_path / 'weights'}: " in read
    wrote = str(told(raised(lambda: files.write(tmp_path / "figures", "x")), request, folder))
    assert f"a file of the run could not be written: {tmp_path / 'figures'}: " in wrote


def test_who_writes_is_told_by_the_kind_of_error() -> None:
    said = {"Error while serializing: x (os error 13)": True, "Error while deserializing: x (os error 13)": False}
    assert {text: files.writing(ValueError(text)) for text in said} == said
    assert files.writing(OSError(errno.ENOSPC, "x", "y")) and not files.writing(OSError(errno.EACCES, "x", "y"))
