"""Agents with odd names: their folders are read by plain transformers, also of a run that broke off and went on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import bert, write

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.names import LENGTH
from kdmesh.spec.read import parse

NAMES = ["学" * LENGTH, "été", "p[0].[1]", "-rf"]


class Killed(BaseException):
    """The process is gone."""


def run(spec: Any, monkeypatch: pytest.MonkeyPatch, last: int = 0, **more: Any) -> tuple[Path, int]:
    """Run, and break off at the host's call of number ``last``; the run's folder and the number of calls."""
    calls, inner = 0, InlineBackend.call

    def call(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            raise Killed
        return inner(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(InlineBackend, "call", call)
        _, folder, _ = run_once(Request(spec, "inline", checkpoint_seconds=0, **more))
    assert folder is not None
    return folder.root, calls


def test_folders_of_odd_names_are_read_by_plain_transformers_after_a_break_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    *teachers, student = NAMES
    mesh = {
        "name": "網[0].é",
        "data": {"dataset": {"text": {"path": str(write(tmp_path, 40)), "label": "label"}}},
        "agents": {name: {"model": bert(8, tokenizer={"characters": {}})} for name in NAMES},
        "connect": [{"ensemble": {"teachers": teachers, "student": student}}],
        "train": {"steps": 2, "batch_size": 8},
        "placement": {"ホスト": NAMES[:2], "h[1]": NAMES[2:]},
    }
    whole, calls = run(parse(mesh), monkeypatch, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(parse(mesh), monkeypatch, 2 * calls // 3, out=tmp_path / "broken")
    (broken,) = (tmp_path / "broken").glob("*/*")
    resumed, _ = run(parse(mesh), monkeypatch, resume=broken)
    assert resumed.parent.name == mesh["name"] and {path.name for path in (resumed / "agents").iterdir()} == {*NAMES}
    text = "the red bird"
    for name in NAMES:
        one, other = (root / "agents" / name for root in (whole, resumed))
        assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes(), name
        net, tokenizer = AutoModelForSequenceClassification.from_pretrained(other), AutoTokenizer.from_pretrained(other)
        with torch.no_grad():
            said = net(**tokenizer(text, return_tensors="pt")).logits
            assert torch.equal(kdmesh.load(other)([text]), said), name
