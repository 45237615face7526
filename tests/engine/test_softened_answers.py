"""Models that give probabilities where logits are due are named, whatever their last operation is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdmesh.hosts.guard import is_softened
from kdmesh.objectives import ForwardKL
from kdmesh.signals.lazy import FactoredLogits

ROWS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("value", "softened"),
    [
        (ROWS, False),
        (ROWS.softmax(1), True),
        (ROWS.softmax(1).bfloat16(), True),
        (ROWS.softmax(1).half(), True),
        (torch.eye(3), True),  # votes
        (ROWS.log_softmax(1), False),
        (ROWS.sigmoid(), False),
        (torch.cat([ROWS.softmax(1), ROWS[:1]]), False),
        (ROWS[:, :2].softmax(1), True),
        (ROWS[:, :1].sigmoid(), False),
        (torch.ones(4, 1), False),
        (ROWS.softmax(1) * 2, False),
        (torch.full((4, 3), torch.nan), False),
        (torch.zeros(4, 3), False),
        (ROWS.softmax(1)[:0], False),
        (torch.ones(4, 3, dtype=torch.int64), False),
        (FactoredLogits(torch.ones(2, 3), torch.ones(4, 3)), False),
        (None, False),
    ],
)
def test_which_answers_look_like_probabilities(value: Any, softened: bool) -> None:
    assert is_softened(value) is softened


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logarithms_of_probabilities_teach_as_logits_do_at_any_temperature(temperature: float) -> None:
    objective, own = ForwardKL(temperature=temperature), torch.randn(4, 3)
    with_logits = objective(own, ROWS, form="logits")
    torch.testing.assert_close(objective(own, ROWS.log_softmax(1), form="logits"), with_logits)
    assert not torch.isclose(objective(own, ROWS.softmax(1), form="logits"), with_logits)


class Ending(nn.Module):
    """A model with something after its last layer."""

    def __init__(self, end: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.end = nn.Linear(8, 3), end

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        if self.end == "share":  # no softmax of torch's
            return z.exp() / z.exp().sum(1, keepdim=True)
        return {"softmax": z.softmax(1), "log": z.log_softmax(1), "sigmoid": z.sigmoid(), "none": z}[self.end]


def notes(folder: Path, agent: str) -> list[str]:
    """What a run's log says of an agent's answers."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    found = [event["text"] for event in events if event["event"] == "note"]
    return [text for text in found if text.startswith(f"{agent}: ") and "softmax" in text]


@pytest.mark.parametrize("flow", [{}, {"refresh": "step"}], ids=["stored", "live"])
@pytest.mark.parametrize("placement", ["together", "spread"])
def test_a_teacher_s_probabilities_are_named_once_and_before_it_has_taught(
    mesh: Any, tmp_path: Path, flow: dict[str, str], placement: str
) -> None:
    made = mesh(["s"], train={"epochs": 2}, placement=placement)
    made.agent("t", Ending("share"), update="frozen")
    made.flow("t", "s", objective={"kl": {"temperature": 4}}, **flow)
    made.flow("labels", "s", objective="ce")
    result = made.run(backend="inline", out=tmp_path)
    (note,) = notes(result.folder, "t")
    assert note.startswith("t: its answers look like probabilities, not logits") and note in result.summary["notes"]
    log = (result.folder / "events.jsonl").read_text()
    assert log.index("look like probabilities") < log.index('"evaluated"')
    assert not notes(result.folder, "s")


@pytest.mark.parametrize(("end", "count"), [("share", 1), ("softmax", 1), ("log", 0), ("sigmoid", 0), ("none", 0)])
def test_a_student_s_too_and_what_the_check_has_said_is_not_said_again(
    mesh: Any, tmp_path: Path, end: str, count: int
) -> None:
    made = mesh([], train={"epochs": 1})
    made.agent("s", Ending(end))
    made.flow("labels", "s", objective="ce")
    result = made.run(backend="inline", out=tmp_path)
    found = notes(result.folder, "s")
    assert len(found) == count and found == [text for text in result.summary["notes"] if "softmax" in text]
    if count:
        assert ("ends in a softmax" in found[0]) == (end == "softmax")


def test_who_only_is_measured_is_named(mesh: Any) -> None:
    made = mesh(["s"], train={"epochs": 1})
    made.agent("t", Ending("share"), update="frozen")
    made.flow("t", "s", signal="hidden", tap={"of": "body", "to": "head"}, objective="hint")
    made.flow("labels", "s", objective="ce")
    assert any(note.startswith("t: its answers") for note in made.run(backend="inline").summary["notes"])
