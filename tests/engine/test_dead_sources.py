"""A source whose answers hold NaN or infinite numbers is named, once a stream, where a run goes on in spite of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdmesh.errors import RunFailed
from kdmesh.hosts.guard import is_dead
from kdmesh.signals.lazy import FactoredLogits

NAN, INF = torch.nan, torch.inf


def broken(value: float) -> nn.Module:
    """A teacher with one weight that is not a number."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 3))
    with torch.no_grad():
        module[0].weight[1, 2] = value  # type: ignore[index]
    return module


@pytest.mark.parametrize(
    ("rows", "dead"),
    [
        ([[0.0, 1.0]], False),
        ([[0.0, -INF]], False),  # a class that is masked
        ([[-INF, -INF]], True),
        ([[0.0, 1.0], [NAN, 1.0]], True),
        ([[0.0, INF]], True),
    ],
)
def test_which_answers_are_dead(rows: list[list[float]], dead: bool) -> None:
    assert is_dead(torch.tensor(rows)) is dead


def test_logits_that_are_not_made_yet_are_looked_at_by_their_rows_and_one_product() -> None:
    hidden, weight = torch.ones(2, 3), torch.ones(4, 3)
    assert not is_dead(FactoredLogits(hidden, weight))
    assert is_dead(FactoredLogits(torch.tensor([[1.0, 1, 1], [1, NAN, 1]]), weight))
    weight[2] = NAN
    assert is_dead(FactoredLogits(hidden, weight))


def council(mesh: Any, rule: str, value: float = NAN, **flow: Any) -> Any:
    """Two sound frozen teachers and a broken one, combined for a student."""
    made = mesh("s", train={"epochs": 2})
    for name, weight in (("dead", value), ("t1", 0.1), ("t2", 0.2)):
        made.agent(name, broken(weight), update="frozen")
    made.consensus("c", rule)
    made.flow(["dead", "t1", "t2"], "c", **flow)
    made.flow("labels", "s", objective="ce")
    made.flow("c", "s", objective="kl")
    return made


def said(folder: Path) -> list[str]:
    """The notes of a run that name the source."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event["text"] for event in events if event["event"] == "note" and "dead is a dead source" in event["text"]]


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("flow", [{}, {"refresh": "step"}], ids=["stored", "live"])
def test_a_dead_teacher_under_votes_is_named_once_and_the_run_goes_on(
    mesh: Any, tmp_path: Path, value: float, flow: dict[str, str]
) -> None:
    result = council(mesh, "vote", value, **flow).run(backend="inline", out=tmp_path / "run")
    (note,) = said(result.folder)
    assert "'train'" in note and note in result.summary["notes"]
    text = (result.folder / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert summary["agents"]["dead"]["metrics"]["test"]["loss"] is None
    assert note in summary["notes"]
    assert not [text for text in result.summary["notes"] if "t1" in text and "dead source" in text]


def test_a_dead_teacher_whose_loss_breaks_is_named_before_the_run_ends(mesh: Any, tmp_path: Path) -> None:
    made = mesh("s", train={"epochs": 1})
    made.agent("dead", broken(NAN), update="frozen")
    made.flow("dead", "s", objective="kl")
    with pytest.raises(RunFailed, match="dead -> s"):
        made.run(backend="inline", out=tmp_path / "run")
    (folder,) = {path.parent for path in (tmp_path / "run").rglob("events.jsonl")}
    assert len(said(folder)) == 1


def test_a_teacher_that_sends_votes_alone_is_named(mesh: Any, tmp_path: Path) -> None:
    made = mesh("s", train={"epochs": 1})
    made.agent("dead", broken(NAN), update="frozen")
    made.flow("dead", "s", signal="votes", objective="ce", refresh="step")
    result = made.run(backend="inline", out=tmp_path / "run")
    assert len(said(result.folder)) == 1


def test_sound_teachers_are_not_spoken_of(mesh: Any, tmp_path: Path) -> None:
    result = council(mesh, "median", 0.3).run(backend="inline", out=tmp_path / "run")
    assert not said(result.folder)
    assert not [note for note in result.summary["notes"] if "dead" in note]
