"""Settings of optimisers and schedules that torch would refuse, or silently pass over: the place, and what to write."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdmesh.errors import MeshError
from kdmesh.hosts.rehearsal import rehearse
from kdmesh.spec import TrainSpec

KINDS = frozenset({((2, 2), torch.float32), ((2,), torch.float32)})
TABLE: list[tuple[str, str, dict[str, Any], str, str, str]] = [
    # section, name, settings, place below the section's name, what was found, what to write
    ("optimizer", "adamw", {"betas": [0.9]}, ".betas", "betas of AdamW is [0.9]", "2 numbers, such as [0.9, 0.999]"),
    ("optimizer", "adamw", {"betas": 0.9}, ".betas", "betas of AdamW is 0.9", "2 numbers"),
    ("optimizer", "adamw", {"betas": ["a", 0.9]}, ".betas", "['a', 0.9]", "2 numbers"),
    ("optimizer", "adamw", {"betas": [0.9, 1.5]}, ".betas", "AdamW refuses betas: [0.9, 1.5]", "[0.9, 0.999]"),
    ("optimizer", "adamw", {"lr": [1]}, ".lr", "lr of AdamW is [1]", "a number"),
    ("optimizer", "adamw", {"lr": None}, ".lr", "lr of AdamW is None", "a number"),
    ("optimizer", "adamw", {"lr": -1}, ".lr", "AdamW refuses lr: -1", "by default it is 0.001"),
    ("optimizer", "adamw", {"fused": 3}, ".fused", "fused of AdamW is 3", "true or false"),
    ("optimizer", "adamw", {"rate": 3}, "", "AdamW has no argument 'rate'", "lr"),
    ("optimizer", "sgd", {"momentum": [0.9]}, ".momentum", "momentum of SGD is [0.9]", "a number"),
    ("optimizer", "sgd", {"dampening": [0]}, ".dampening", "dampening of SGD is [0]", "a number"),
    ("optimizer", "sgd", {"nesterov": True}, ".nesterov", "SGD refuses nesterov: True", "by default it is False"),
    ("optimizer", "rprop", {"step_sizes": [1, "x"]}, ".step_sizes", "[1, 'x']", "2 numbers"),
    ("schedule", "MultiStepLR", {"milestones": ["a"]}, ".milestones", "is ['a']", "a list of whole numbers"),
    ("schedule", "MultiStepLR", {"milestones": 5}, ".milestones", "is 5", "a list of whole numbers"),
    ("schedule", "MultiStepLR", {"milestones": [2.5]}, ".milestones", "is [2.5]", "a list of whole numbers"),
    ("schedule", "MultiStepLR", {}, "", "MultiStepLR needs `milestones`", "milestones: a list of whole numbers"),
    ("schedule", "StepLR", {"step_size": 2.5}, ".step_size", "step_size of StepLR is 2.5", "a whole number"),
    ("schedule", "StepLR", {"step_size": 0}, "", "StepLR of {'step_size': 0} fails at update 1", "20 updates"),
    ("schedule", "StepLR", {"step_size": 3, "gamma": [1]}, ".gamma", "gamma of StepLR is [1]", "a number"),
    ("schedule", "ExponentialLR", {"gamma": "x"}, ".gamma", "gamma of ExponentialLR is 'x'", "a number"),
    ("schedule", "LinearLR", {"start_factor": 5}, ".start_factor", "LinearLR refuses start_factor: 5", "0.333"),
    ("schedule", "CyclicLR", {"base_lr": 0.1, "max_lr": 1, "mode": "x"}, ".mode", "is 'x'", "triangular or"),
    ("schedule", "CyclicLR", {"base_lr": 0.1, "max_lr": 1, "scale_fn": "x"}, ".scale_fn", "is 'x'", "leave it out"),
    ("schedule", "OneCycleLR", {"max_lr": 0.1, "total_steps": 10}, "", "fails at update 11 of 20", "not epochs"),
    ("schedule", "LambdaLR", {"lr_lambda": "x"}, None, "it needs a function, which a file cannot hold", "StepLR"),  # type: ignore[list-item]
]  # fmt: skip


@pytest.mark.parametrize(("section", "name", "config", "place", "found", "instead"), TABLE)
def test_what_torch_refuses_is_told_with_its_place(
    section: str, name: str, config: dict[str, Any], place: str | None, found: str, instead: str
) -> None:
    settings = TrainSpec.model_validate({section: {name: config}})
    with pytest.raises(MeshError) as error:
        rehearse(KINDS, settings, 20, ("train", "agents.s.train"))
    root = "train" if section == "optimizer" else "agents.s.train"
    assert error.value.where == f"{root}.{section}" + ("" if place is None else f".{name}{place}")
    assert found in error.value.what and instead in error.value.instead
    assert "\n" not in error.value.what and "not supported between" not in str(error.value)


def test_what_is_right_is_let_through() -> None:
    for optimizer in ({"adamw": {"lr": 1, "betas": [0, 0.9], "foreach": None}}, {"adafactor": {"eps": [None, 1e-3]}}):
        assert rehearse(KINDS, TrainSpec.model_validate({"optimizer": optimizer}), 20, ("train", "train")) == []
    for schedule in ({"StepLR": {"step_size": 5.0}}, {"OneCycleLR": {"max_lr": [0.1], "total_steps": 20}}):
        assert rehearse(KINDS, TrainSpec.model_validate({"schedule": schedule}), 20, ("train", "train")) == []


def test_a_schedule_that_never_acts_is_told() -> None:
    settings = TrainSpec.model_validate({"schedule": {"MultiStepLR": {"milestones": [30]}}})
    (note,) = rehearse(KINDS, settings, 20, ("train", "train"))
    assert note == "the schedule MultiStepLR never changes the learning rate in the 20 updates that there are"
    assert rehearse(KINDS, settings, 40, ("train", "train")) == []
