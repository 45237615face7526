"""Hosts that do not see the run's folder hand their files over, and a resumed run gives them back."""

from __future__ import annotations

import pytest

from kdmesh.contracts.events import Progress
from kdmesh.engine.checkpoint import Checkpoints
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.hosts import export
from kdmesh.hosts.remote import RemoteHost
from kdmesh.spec.read import parse

SPEC = parse(
    {
        "name": "apart",
        "data": {"dataset": "digits", "train": 128, "validation": 32, "test": 32},
        "agents": {name: {"model": {"mlp": {"hidden": [8]}}} for name in ("a", "b")},
        "connect": [{"mutual": {"peers": ["a", "b"]}}],
        "train": {"epochs": 3, "batch_size": 32, "optimizer": {"adamw": {"lr": 0.01}}},
        "placement": {"left": ["a"], "right": ["b"]},
    }
)


def interrupt(event):
    if isinstance(event, Progress) and event.done >= 6:
        raise KeyboardInterrupt


def shas(summary):
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.safetensors")}


def test_files_that_are_handed_over_are_those_that_would_be_written(tmp_path, monkeypatch):
    summary, near, _ = run_once(Request(SPEC, "inline", out=tmp_path / "near"))
    monkeypatch.setattr(export, "sees", lambda name, folder, token: name == "left")
    found, far, _ = run_once(Request(SPEC, "inline", out=tmp_path / "far"))
    assert shas(found) == shas(summary)
    assert contents(far.root) == contents(near.root) and len(contents(far.root)) == 7
    assert not list(far.root.rglob(f"{export.TOKEN}*"))


def test_a_run_is_resumed_by_hosts_that_do_not_see_its_folder(tmp_path, monkeypatch):
    expected = shas(run_once(Request(SPEC, "inline"))[0])
    monkeypatch.setattr(export, "sees", lambda name, folder, token: name == "left")
    request = Request(SPEC, "inline", out=tmp_path, checkpoint_seconds=0, listeners=(interrupt,))
    with pytest.raises(KeyboardInterrupt):
        run_once(request)
    (folder,) = tmp_path.glob("*/*")
    resumed, _, _ = run_once(Request(SPEC, "inline", resume=folder))
    assert shas(resumed) == expected


def test_only_a_token_tells_whose_folder_it_is(tmp_path):
    assert not export.sees("h", str(tmp_path / "nowhere"), "one")
    (tmp_path / export.TOKEN).write_text("two")
    assert not export.sees("h", str(tmp_path), "one")
    (tmp_path / export.TOKEN).write_text("one")
    assert export.sees("h", str(tmp_path), "one")
    assert (tmp_path / f"{export.TOKEN}-h").read_text() == "one"


def test_a_host_whose_answer_the_driver_does_not_find_is_apart(tmp_path):
    class Backend:
        def submit(self, host, method, folder, token):
            assert method is RemoteHost.sees
            return export.sees(host, folder if host == "here" else str(tmp_path / "copy"), token)

    (tmp_path / "copy").mkdir()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    steps = checkpoints.find_apart(Backend(), ["here", "there", "deaf"])
    answers = next(steps)
    assert answers == [True, False, False]
    with pytest.raises(StopIteration):
        steps.send([True, False, True])
    assert checkpoints.apart == {"there", "deaf"}
    assert checkpoints.place("there", tmp_path) is None and checkpoints.place("here", tmp_path) == str(tmp_path)
