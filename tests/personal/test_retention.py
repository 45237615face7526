"""What a run keeps and for how long: gone at its end or past its term, said by the plan, and told by `verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import kdmesh
from kdmesh.cli import main
from kdmesh.engine.retention import DAY, due
from kdmesh.errors import MeshError
from kdmesh.files import read_json
from kdmesh.report.folders import begun
from kdmesh.report.plan_text import plan_text


def mesh(**more: Any) -> kdmesh.Mesh:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    data = kdmesh.data((x[:20], x[:20].argmax(1) % 2), (x[20:30], x[20:30].argmax(1) % 2),
                       (x[30:], x[30:].argmax(1) % 2), classes=2)  # fmt: skip
    made = kdmesh.Mesh(name="kept", data=data, train={"steps": 2, "batch_size": 8}, **more)
    made.agent("t", {"mlp": {"hidden": [4]}})
    made.agent("s", {"mlp": {"hidden": [4]}})
    made.connect("ensemble", teachers=["t"], student="s")
    return made


def made(folder: Path, seeds: int = 1, **more: Any) -> Path:
    mesh(**more).run(backend="inline", out=folder, seeds=seeds, checkpoint_seconds=0)
    (root,) = (folder / "kept").iterdir()
    return root


def names(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*")}


def test_without_terms_all_is_kept(tmp_path: Path) -> None:
    root = made(tmp_path)
    assert {"events.jsonl", "checkpoints", "answers.safetensors"} <= names(root) and "expired.jsonl" not in names(root)


def test_what_is_kept_no_longer_than_the_run_is_gone_at_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(tmp_path, seeds=2, keep={"checkpoints": "end", "answers": "end", "events": "30d"})
    assert {"events.jsonl", "expired.jsonl"} <= names(root)
    assert not {"checkpoints", "answers.safetensors"} & names(root)
    assert main(["verify", str(root)]) == 0
    out = capsys.readouterr().out
    assert "at the end of its term" in out and "seeds/1/answers.safetensors" in " ".join(out.split())
    assert main(["report", str(root)]) == 0 and main(["runs", str(tmp_path)]) == 0


def test_what_is_past_its_term_can_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = made(tmp_path, keep={"events": "30d", "answers": "31d"})
    manifest = read_json(root / "manifest.json") or {}
    at = begun(root)
    for days, gone in ((29, set()), (30, {"events.jsonl"}), (31, {"events.jsonl", "answers.safetensors"})):
        assert {path.name for path in due(root, manifest["mesh"], at + days * DAY)} == gone
    monkeypatch.setattr("kdmesh.engine.retention.time.time", lambda: at + 32 * DAY)
    assert main(["runs", str(tmp_path), "--clean", "--json"]) == 0
    listed = {Path(one["path"]).name: one for one in json.loads(capsys.readouterr().out)}
    assert "past its term of 30 days (keep.events)" in listed["events.jsonl"]["why"]
    assert "events.jsonl" in names(root)
    assert main(["runs", str(tmp_path), "--clean", "--yes"]) == 0
    assert not {"events.jsonl", "answers.safetensors", "checkpoints"} & names(root)
    assert main(["verify", str(root)]) == 0


@pytest.mark.parametrize(
    ("keep", "where", "said"),
    [
        ({"events": "soon"}, "keep.events", "is no term"),
        ({"events": "0d"}, "keep.events", "is no term"),
        ({}, "keep", "names no term"),
        ({"texts": "3d"}, "keep.texts", "no agent writes texts"),
        ({"personal": "end"}, "keep.personal", "no personal data is looked for"),
    ],
)
def test_a_term_that_would_do_nothing_is_refused(keep: dict[str, str], where: str, said: str) -> None:
    with pytest.raises(MeshError, match=said) as caught:
        mesh(keep=keep).plan()
    assert caught.value.where == where


def test_the_plan_says_it() -> None:
    assert "checkpoints: end" in plan_text(mesh(keep={"checkpoints": "end"}).plan())
