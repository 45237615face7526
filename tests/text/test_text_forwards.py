"""A frozen agent of texts answers ahead of its steps; broken off and resumed, as many forwards are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from text_meshes import bert, classified

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.engine.teach import Teaching
from kdmesh.spec.read import parse


class Killed(BaseException):
    """The process is gone."""


def mesh(path: Path, placement: str) -> dict[str, Any]:
    """A live frozen teacher, and a student with more steps than another, so that a lesson is begun twice."""
    return classified(
        path,
        agents={
            "t": {"model": bert(8), "update": "frozen"},
            "s": {"model": bert(8)},
            "long": {"model": bert(8), "train": {"steps": 16}},
        },
        connect=[{"ensemble": {"teachers": "t", "students": ["s", "long"], "refresh": "step"}}],
        flows=[{"from": "s", "to": "long", "objective": "kl", "refresh": "step"}],
        train={"steps": 11, "batch_size": 4, "optimizer": {"adamw": {"lr": 3e-3}}},
        placement=placement,
    )


@pytest.mark.parametrize("placement", ["together", "spread"])
def test_forwards_are_counted_alike_where_a_run_was_broken_off(
    texts: Path, placement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdmesh.engine.teach.SECONDS", 0.0)  # a checkpoint after each step, or each window of two
    monkeypatch.setattr("kdmesh.engine.teach.WINDOW", 2)
    spec, steps, last = parse(mesh(texts, placement)), 0, 0
    noted = Teaching._note

    def note(self: Any, *args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == last:
            raise Killed
        return noted(self, *args)

    def run(**more: Any) -> dict[str, Any]:
        summary, _, _ = run_once(Request(spec, "inline", checkpoint_seconds=0, **more))
        return {name: (one["forwards"], one["weights_sha256"]) for name, one in summary["agents"].items()}

    monkeypatch.setattr(Teaching, "_note", note)
    whole = run(out=tmp_path / "whole")
    assert whole["t"][0]["made"] > 0
    assert steps >= 5
    for last in [steps // 3 if placement == "together" else steps - 1]:
        steps = 0
        with pytest.raises(KeyboardInterrupt):
            run(out=tmp_path / str(last))
        (folder,) = (tmp_path / str(last)).glob("*/*")
        last = 0
        assert run(resume=folder) == whole
