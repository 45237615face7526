"""Whatever an unbroken run's summary notes, a resumed one notes as well, in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import kdmesh
from kdmesh.backends.inline import InlineBackend

KINDS = [
    "test samples have the values",
    "dead is a dead source",
    "soft: its answers",
    "idle learned nothing",
    "at chance",
]


class Killed(BaseException):
    """The process is gone."""


class Shares(nn.Linear):
    """Gives probabilities."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = super().forward(x).exp()
        return z / z.sum(1, keepdim=True)


def chain(placement: str) -> kdmesh.Mesh:
    """A dead teacher and one that gives probabilities teach a student, which teaches the next; one more is idle."""
    draw = torch.Generator().manual_seed(0)
    parts = [(torch.randn(n, 4, generator=draw), torch.arange(n) % 3) for n in (40, 12, 12)]
    parts[2][0][0] = parts[0][0][0]
    made = kdmesh.Mesh(
        data=kdmesh.data(*parts),
        train={"epochs": 2, "batch_size": 16, "optimizer": {"sgd": {"lr": 0.1}}},
        placement=placement,
    )
    torch.manual_seed(0)
    dead, soft, sound = nn.Linear(4, 3), Shares(4, 3), nn.Linear(4, 3)
    with torch.no_grad():
        dead.weight[1, 2] = torch.nan
    for name, module in (("dead", dead), ("soft", soft), ("sound", sound)):
        made.agent(name, module, update="frozen")
    for name in ("first", "second", "idle"):
        idle = {"train": {"optimizer": {"sgd": {"lr": 1e-12}}}} if name == "idle" else {}
        made.agent(name, {"mlp": {"hidden": [4]}}, **idle)
    made.consensus("c", "vote")
    made.flow(["dead", "soft", "sound"], "c")
    made.flow("c", "first", objective="kl")
    made.flow("first", "second", objective="kl", refresh="once")
    made.flow("labels", "idle", objective="ce")
    return made


def run(made: kdmesh.Mesh, monkeypatch: pytest.MonkeyPatch, last: int | None = None, **more: Any) -> tuple[Any, int]:
    """Run, and break off at the host's call of number ``last``; the summary and the number of calls."""
    calls, inner = 0, InlineBackend.call

    def call(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            raise Killed
        return inner(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(InlineBackend, "call", call)
        return made.run(backend="inline", checkpoint_seconds=0, **more).summary, calls


@pytest.mark.parametrize("placement", ["together", "spread"])
def test_a_run_broken_off_anywhere_notes_what_the_unbroken_one_does(
    placement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = chain(placement)
    whole, calls = run(made, monkeypatch, out=tmp_path / "whole")
    notes = whole["notes"]
    assert [any(kind in note for note in notes) for kind in KINDS] == [True] * len(KINDS), notes
    for number in [calls * part // 5 for part in ((1, 3) if placement == "together" else (2, 4))]:
        with pytest.raises(KeyboardInterrupt):
            run(made, monkeypatch, number, out=tmp_path / str(number))
        (folder,) = (tmp_path / str(number)).glob("*/*")
        again, _ = run(made, monkeypatch, resume=folder)
        assert again["notes"] == notes, number
        told = [{key: agent.get("learned") for key, agent in one["agents"].items()} for one in (whole, again)]
        assert told[0] == told[1], number
