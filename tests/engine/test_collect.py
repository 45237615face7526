"""A run's folder at a URL: taken there at its end, whichever end that is, and fetched again to go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest
from commands import ROOT
from fsspec.implementations.memory import MemoryFileSystem

from kdmesh.cli import main
from kdmesh.engine.collect import Place, fresh
from kdmesh.engine.run import Run
from kdmesh.errors import MeshError, RunFailed
from kdmesh.hosts import checkpoint

MESH = """
name: small
data: {dataset: digits, train: 64}
agents: {t: {model: {mlp: {hidden: [8]}}}, s: {model: {mlp: {hidden: [4]}}}}
connect: [{ensemble: {teachers: t, student: s}}]
train: {epochs: 2}
"""


class Full(MemoryFileSystem):
    """Takes small files only, as a quota does when it runs out."""

    protocol = "full"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its parent's
    pseudo_dirs = [""]  # noqa: RUF012

    def put_file(self, lpath: Any, rpath: Any, **more: Any) -> None:
        if str(lpath).endswith(".safetensors"):
            raise OSError(28, "No space left in the bucket")
        super().put_file(lpath, rpath, **more)


@pytest.fixture(autouse=True)
def stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fsspec.register_implementation("full", Full, clobber=True)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(Full, "store", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mesh.yaml").write_text(MESH, encoding="utf-8")


def run(out: str, *more: str) -> int:
    return main(["run", "mesh.yaml", "--backend", "inline", "--checkpoint-seconds", "0", "--out", out, *more])


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def shas(root: Path) -> dict[str, str]:
    agents = json.loads((root / "summary.json").read_text(encoding="utf-8"))["agents"]
    return {name: facts["weights_sha256"] for name, facts in agents.items()}


def test_a_finished_run_is_at_the_url_file_by_file(tmp_path: Path, capsys: Any) -> None:
    assert run(f"file://{tmp_path}/away", "--controls") == 0
    (here,), (there,) = tmp_path.glob("runs/small/*"), tmp_path.glob("away/small/*")
    assert files(here) == files(there) and "checkpoints/s/0001/manifest.json" not in files(there)
    assert "controls" in json.loads((there / "summary.json").read_text(encoding="utf-8"))
    assert f"file://{there}  (and {here.relative_to(tmp_path)})" in capsys.readouterr().out
    assert not list(tmp_path.glob("away/.kdmesh*"))


def test_every_seed_is_collected(capsys: Any) -> None:
    assert run("memory://bucket/deep", "--seeds", "2") == 0
    found = fsspec.filesystem("memory").glob("/bucket/deep/small/*/seeds/*/summary.json")
    assert [path.split("/")[-2] for path in sorted(found)] == ["0", "1"]
    assert fsspec.filesystem("memory").glob("/bucket/deep/small/*/results.json")
    assert "memory://bucket/deep/small/" in capsys.readouterr().out


def pause(monkeypatch: pytest.MonkeyPatch, after: int) -> pytest.MonkeyPatch:
    """Send this process a SIGTERM when so many parts of checkpoints are written."""
    inner, written = checkpoint.save_file, []

    def save(*args: Any) -> None:
        inner(*args)
        written.append(args)
        if len(written) == after:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "save_file", save)
    return monkeypatch


@pytest.mark.parametrize("resumed", ["URL", "folder"])
def test_a_paused_run_goes_on_from_the_url_or_the_folder_and_is_collected_there(
    resumed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert run("whole") == 0
    (whole,) = tmp_path.glob("whole/small/*")
    with monkeypatch.context() as patch:
        pause(patch, 2)
        assert run(f"file://{tmp_path}/away") == 130
    (here,), (there,) = tmp_path.glob("runs/small/*"), tmp_path.glob("away/small/*")
    assert f"what there is was collected: kdmesh resume file://{there}" in capsys.readouterr().err
    assert not (there / "summary.json").exists() and "checkpoints/t/0002/manifest.json" in files(there)
    assert main(["resume", f"file://{there}" if resumed == "URL" else str(here)]) == 0
    assert shas(there) == shas(whole)
    last = max(tmp_path.glob("runs/small/*"), key=lambda path: len(path.name))
    assert files(last) == files(there) and (last == here) == (resumed == "folder")
    assert main(["resume", f"file://{there}"]) == 2 and "this run has finished" in capsys.readouterr().err


def test_a_second_signal_ends_at_once_and_collects_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Run.progressed

    def again(self: Run) -> None:
        inner(self)
        if self.pausing:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "progressed", again)
    pause(monkeypatch, 2)
    assert run(f"file://{tmp_path}/away") == 130
    assert list(tmp_path.glob("runs/small/*/checkpoints")) and not list(tmp_path.glob("away/*"))


def test_a_run_that_fails_leaves_what_there_is(tmp_path: Path, capsys: Any) -> None:
    more = ("--set", "agents.s.train.optimizer={sgd: {lr: 1e30}}", "--set", "train.optimizer={adamw: {}}")
    assert run(f"file://{tmp_path}/away", *more) == 1
    (there,) = tmp_path.glob("away/small/*")
    assert "run_failed" in (there / "events.jsonl").read_text(encoding="utf-8")
    said = capsys.readouterr().err
    assert "the loss became" in said and f"collected: kdmesh resume file://{there}" in said


def test_what_cannot_be_collected_stays_and_both_places_are_named(tmp_path: Path, capsys: Any) -> None:
    assert run("full://bucket") == 1
    out, said = capsys.readouterr()
    (here,) = tmp_path.glob("runs/small/*")
    assert "student" in out and "No space left in the bucket" in said and "Traceback" not in said
    assert f"could not be collected at full://bucket/small/{here.name}" in said
    assert f"copy it from runs/small/{here.name}" in said
    assert {"summary.json", "agents/s/model.safetensors"} <= set(files(here))
    assert not fsspec.filesystem("full").glob("/bucket/small/*/summary.json")  # the last file: it says complete


def test_a_pause_that_cannot_be_collected_says_so_and_goes_on_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with monkeypatch.context() as patch:
        pause(patch, 2)
        assert run("full://bucket") == 130
    (here,) = tmp_path.glob("runs/small/*")
    said = capsys.readouterr().err
    assert f"could not be collected at full://bucket/small/{here.name}" in said
    assert f"go on with: kdmesh resume runs/small/{here.name}" in said
    assert main(["resume", str(here)]) == 1  # trains to its end, and is not collected either
    assert (here / "summary.json").exists() and "copy it from" in capsys.readouterr().err


def test_a_fetched_folder_has_only_files_of_its_own(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/runs/small/x/manifest.json", b"{}")
    store.pipe_file("/runs/small/x/../../out", b"not here")
    with pytest.raises(MeshError, match="outside of the run's folder"):
        Place("memory://runs/small/x").fetch(tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists() and not (tmp_path / "out").exists()


def test_what_is_gone_here_goes_there(tmp_path: Path) -> None:
    root, place = fresh(tmp_path, "run"), Place.writable("memory://bucket/run")
    for name in ("old", "kept"):
        (root / name).write_text(name, encoding="utf-8")
    place.put(root)
    (root / "old").unlink()
    place.put(root)
    assert place._names() == {"kept"}


def test_a_place_that_fails_while_it_is_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place.writable("memory://bucket/run")
    with pytest.raises(MeshError, match="this is not a run's folder"):
        place.fetch(tmp_path)
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_: 1 / 0)
    with pytest.raises(MeshError, match="memory://bucket/run: cannot be fetched: ZeroDivisionError"):
        place.fetch(tmp_path)
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        place.put(tmp_path)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("nowhere://bucket", "Protocol not known: nowhere"),
        pytest.param(
            "s3://bucket/x",
            "s3fs",
            marks=pytest.mark.skipif(find_spec("s3fs") is not None, reason="its package is installed"),
        ),
        ("file://{here}/mesh.yaml/below", "NotADirectoryError"),
        ("ftp://me:secret@localhost/x", "a password in a URL"),
    ],
)
@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_url_that_cannot_be_written_is_wrong_input_before_anything_starts(
    command: str, out: str, said: str, tmp_path: Path
) -> None:
    url = out.format(here=tmp_path)
    what = ["run", "mesh.yaml", "--out", url] if command == "run" else ["resume", url]
    script = (
        f"import sys; from kdmesh.cli import main; code = main({what!r}); print({{'ray', 'torch'}} & set(sys.modules))"
    )
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", script + "; sys.exit(code)"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "secret" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mesh.yaml"}
    assert done.stdout == "set()\n"
