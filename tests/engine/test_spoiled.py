"""What spoils figures, or says nothing, is said: validation that teaches, and a length that does not count."""

from __future__ import annotations

from typing import Any

import pytest

from kdmesh.engine.check import examine
from kdmesh.errors import MeshError


@pytest.mark.parametrize("stream", ["validation", "own"])
def test_validation_that_teaches_is_said_and_ends_nobody_s_training(mesh: Any, stream: str) -> None:
    made = mesh(["t", "s"], train={"steps": 1}, streams={"own": {"of": "validation"}})
    made.flow("labels", "t", objective="ce")
    made.flow("t", "s", objective="kl", stream=stream)
    found = examine(made.plan(), {}, made.table)
    held = len(found.streams["validation"].rows)
    note = (
        f"{held} of the {held} validation samples teach s by stream {stream!r}: validation figures, and the epoch or "
        "teacher that is chosen by them, are of what was learned"
    )
    assert [text for text in found.notes if "validation" in text] == [note]  # said once
    assert note in made.run(backend="inline").summary["notes"]
    stopped = mesh(
        {"t": {}, "s": {"train": {"early_stopping": {}, "epochs": 2}}}, streams={"own": {"of": "validation"}}
    )
    stopped.flow("labels", "t", objective="ce")
    stopped.flow("t", "s", objective="kl", stream=stream)
    with pytest.raises(MeshError, match="`early_stopping` of s watches validation") as error:
        stopped.run(backend="inline")
    assert error.value.where == "flows.1.stream" and "transfer" in error.value.instead


def test_validation_that_teaches_nobody_is_not_spoken_of(mesh: Any) -> None:
    made = mesh({"s": {"train": {"early_stopping": {}}}}, train={"epochs": 1})
    made.flow("labels", "s", objective="ce")
    assert not [note for note in examine(made.plan(), {}, made.table).notes if "validation" in note]


@pytest.mark.parametrize(
    ("train", "own", "said"),
    [
        ({"epochs": 5, "steps": 2}, {}, ["train: `steps: 2` takes precedence, and `epochs: 5` has no effect"]),
        (
            {"steps": 2},
            {"epochs": 5, "steps": 3},
            ["agents.s.train: `steps: 3` takes precedence, and `epochs: 5` has no effect"],
        ),
        ({"steps": 2}, {"epochs": 5}, []),
        ({"epochs": 5}, {"steps": 2}, []),
        ({"steps": 2, "epochs": 20}, {}, []),  # as the long form writes it
    ],
)
def test_a_length_in_epochs_beside_one_in_steps_is_said(mesh: Any, train: Any, own: Any, said: list[str]) -> None:
    made = mesh({"s": {"train": own}}, train=train)
    made.flow("labels", "s", objective="ce")
    assert [note for note in examine(made.plan(), {}, made.table).notes if "takes precedence" in note] == said


def test_the_length_of_a_line_has_one_unit(mesh: Any) -> None:
    made = mesh(["s"], program=[{"of": "s", "train": ["s"], "epochs": 1, "steps": 2}])
    made.flow("labels", "s", objective="ce")
    with pytest.raises(MeshError, match="in `epochs` or in `steps`, not in both"):
        made.plan()
