"""A checkpoint knows whose it is; clean-up takes what the run wrote; the work of a run is never dropped in silence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdmesh.contracts.events import Note, Progress
from kdmesh.engine.checkpoint import HOSTS, MANIFEST, STATE, Checkpoints
from kdmesh.engine.events import Events
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.spec.read import parse

STAGE = "stage"


def write(root: Path, run: str = "one", seed: int = 0, stage: str = STAGE, times: int = 1) -> Path:
    """A checkpoint of two hosts, called as our own files are; the folder of the last."""
    checkpoints = Checkpoints(root, run, seed)
    checkpoints.hosts |= {"stage", "manifest"}
    for number in range(times):
        folder = checkpoints.next(stage)
        parts = [
            {f"{host}.safetensors": host.encode() * 9, f"{host}.json": b"{}"} for host in sorted(checkpoints.hosts)
        ]
        checkpoints.complete(stage, folder, checkpoints.collect(folder, parts), {"at": [number]})
    return folder


def found(root: Path, run: str = "one", seed: int = 0) -> tuple[Path | None, list[str]]:
    """What is gone on from, and what was said of those that are passed over."""
    said: list[str] = []
    return Checkpoints(root, run, seed).last(STAGE, lambda _, why: said.append(why), ["stage", "manifest"]), said


def edit(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_hosts_are_called_as_they_like(tmp_path):
    folder = write(tmp_path)
    assert found(tmp_path) == (folder, [])
    assert Checkpoints.state(folder) == {"at": [0]}
    assert {path.name for path in folder.iterdir()} == {MANIFEST, STATE, HOSTS}
    again = Checkpoints(tmp_path)
    again.apart = {"stage"}
    assert again.part("stage", folder) == {"stage.safetensors": b"stage" * 9, "stage.json": b"{}"}


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ('{"sha256": {}}', "no sums"),
        ('{"sha256": []}', "no sums"),
        ('{"sha256": {"stage.json": 1}}', "no sums"),
        ("[]", "no sums"),
        ("null", "no sums"),
        ("{", "JSONDecodeError"),
        ("\xff", "no sums|Error"),
    ],
)
def test_a_manifest_that_is_none_is_passed_over(tmp_path, manifest, said):
    folder = write(tmp_path, times=2)
    (folder / MANIFEST).write_bytes(manifest.encode("latin-1"))
    before, (why,) = found(tmp_path)
    assert before == folder.with_name("0001")
    assert any(part in why for part in said.split("|"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": "other"}, "of run 'other', not 'one'"),
        ({"seed": 1}, "of seed 1, not 0"),
        ({"stage": "other"}, "of stage 'other', not 'stage'"),
        ({"number": 7}, "of number 7, not 1"),
        ({"run": None}, "of run None"),
        ({"sha256": {"stage.json": "0" * 64}}, "no sum of hosts/manifest.json"),
        ({"sha256": {"../../../etc/passwd": "0" * 64}}, "no sum of"),
    ],
)
def test_a_checkpoint_of_another_is_passed_over(tmp_path, changes, said):
    edit(write(tmp_path), **changes)
    nothing, (why,) = found(tmp_path)
    assert nothing is None and said in why


def test_a_checkpoint_that_was_copied_in_is_passed_over(tmp_path):
    own = write(tmp_path / "own")
    for other, said in (
        (write(tmp_path / "a", run="two"), "of run"),
        (write(tmp_path / "b", seed=1), "of seed"),
        (write(tmp_path / "c", stage="t"), "of stage"),
    ):
        shutil.copytree(other, own.with_name("0005"))
        assert found(tmp_path / "own")[0] == own and said in found(tmp_path / "own")[1][0]
        shutil.rmtree(own.with_name("0005"))


@pytest.mark.parametrize("name", [f"{HOSTS}/stage.safetensors", f"{HOSTS}/manifest.json", STATE])
@pytest.mark.parametrize("damage", ["cut", "gone", "elsewhere"])
def test_a_file_that_is_not_what_was_written_is_noticed(tmp_path, name, damage):
    folder = write(tmp_path / "own")
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "elsewhere":
        (tmp_path / "outside").write_bytes(content)
        path.symlink_to(tmp_path / "outside")
    nothing, (why,) = found(tmp_path / "own")
    assert nothing is None and Path(name).name in why


def test_clean_up_takes_only_what_the_run_wrote(tmp_path):
    root = tmp_path / "checkpoints"
    stage = root / STAGE
    (stage / "2021").mkdir(parents=True)
    (stage / "2021" / "mine.txt").write_text("mine")
    write(tmp_path / "other", run="two")
    shutil.copytree(tmp_path / "other" / STAGE / "0001", stage / "0003")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / STATE).write_text("{}")
    (stage / "0004").symlink_to(tmp_path / "outside")
    half = Checkpoints(root, "one").next(STAGE)
    half = half.with_name("0005")
    (half / HOSTS).mkdir(parents=True)
    (half / HOSTS / "stage.safetensors").write_bytes(b"cut")
    (half / HOSTS / ".0badcafe.part").write_bytes(b"cut")
    (half / "mine.txt").write_text("mine")
    last = write(root, times=4)
    assert last.name == "2025"
    parts = [f"{HOSTS}/{host}.{kind}" for host in ("stage", "manifest") for kind in ("json", "safetensors")]
    whole = [f"{number}/{name}" for number in ("0003", "2024", "2025") for name in (MANIFEST, STATE, *parts)]
    left = {path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()}
    assert left == {*whole, "2021/mine.txt", "0005/mine.txt"} and (tmp_path / "outside" / STATE).exists()
    assert not (stage / "2022").exists() and not (half / HOSTS).exists()


SPEC = {
    "name": "small",
    "data": {"dataset": "digits", "train": 64, "validation": 32, "test": 32},
    "agents": {name: {"model": {"mlp": {"hidden": [4]}}} for name in ("t", "s")},
    "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}],
    "train": {"epochs": 2, "batch_size": 32},
    "placement": {"stage": ["t"], "manifest": ["s"]},
}


def interrupted(out: Path) -> Path:
    """The folder of a run that was stopped in its second stage."""

    def stop(event):
        if isinstance(event, Progress) and event.stage == "s":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_once(Request(parse(SPEC), "inline", out=out, listeners=(stop,), checkpoint_seconds=0))
    (folder,) = out.glob("*/*")
    return folder


def shas(summary):
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_to_begin_a_stage_again_needs_consent_and_is_said(tmp_path, damage):
    expected = shas(run_once(Request(parse(SPEC), "inline"))[0])
    folder = interrupted(tmp_path)
    if damage == "gone":
        shutil.rmtree(folder / "checkpoints" / "t")
    else:
        for path in folder.glob("checkpoints/t/*/manifest.json"):
            edit(path.parent, run="other")
    with pytest.raises(MeshError, match=r"no sound checkpoint is left of the stage 't'.*\n.*--from-start") as caught:
        run_once(Request(parse(SPEC), "inline", resume=folder))
    assert caught.value.file == str(folder)
    told = []
    summary, _, _ = run_once(Request(parse(SPEC), "inline", resume=folder, from_start=True, listeners=(told.append,)))
    assert shas(summary) == expected
    notes = [event.text for event in told if isinstance(event, Note)]
    assert "the stage 't' begins from the start: it has no sound checkpoint" in notes


def test_hosts_called_as_our_files_are_resumed(tmp_path):
    expected = shas(run_once(Request(parse(SPEC), "inline"))[0])
    assert shas(run_once(Request(parse(SPEC), "inline", resume=interrupted(tmp_path)))[0]) == expected


def test_a_run_that_is_under_way_is_not_resumed_by_another_process(tmp_path):
    folder = interrupted(tmp_path)
    hold = f"import sys; from pathlib import Path; from kdmesh.engine.events import Events; log = Events(Path({str(folder / 'events.jsonl')!r})); print('held', flush=True); sys.stdin.read()"  # noqa: E501
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        before = (folder / "events.jsonl").read_bytes()
        with pytest.raises(MeshError, match="another process is using this run's folder"):
            run_once(Request(parse(SPEC), "inline", resume=folder))
        assert (folder / "events.jsonl").read_bytes() == before
        other.kill()
        other.wait()
    Events(folder / "events.jsonl").close()  # death has released it
    run_once(Request(parse(SPEC), "inline", resume=folder))
