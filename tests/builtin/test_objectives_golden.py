"""Values that other libraries return for the same inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kdmesh.builtin.objectives import _chunked
from kdmesh.builtin.objectives.offers import OBJECTIVES
from kdmesh.signals.lazy import FactoredLogits

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "kd_losses.json").read_text())
OFFERS = {offer.name: offer for offer in OBJECTIVES}


def inputs(tokens="valid"):
    i = torch.arange(110, dtype=torch.float64).view(GOLDEN["inputs"]["shape"])
    student, teacher = (torch.sin(0.7 * i) * 2).float(), (torch.cos(1.3 * i) * 3).float()
    valid = torch.tensor(GOLDEN["inputs"]["labels"]) != -100
    return (student[valid], teacher[valid]) if tokens == "valid" else (student, teacher)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['library']} {case['objective']}")
def test_value_of_another_library(case):
    ((name, config),) = case["objective"].items()
    student, teacher = inputs(case["tokens"])
    loss = OFFERS[name].make(config)(student, teacher, form="logits")
    assert loss.dtype == torch.float32
    precision = {"abs": case["within"]} if "within" in case else {"rel": 2e-6}
    assert loss.item() == pytest.approx(case["value"], **precision)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['library']} {case['objective']}")
def test_value_of_another_library_in_chunks(case, monkeypatch):
    monkeypatch.setattr(_chunked, "LARGE", 0)
    monkeypatch.setattr(_chunked, "CHUNK", 2 * 2 * 11)
    ((name, config),) = case["objective"].items()
    student, teacher = (side.flatten(0, -2) for side in inputs(case["tokens"]))
    loss = OFFERS[name].make(config).forward(FactoredLogits(student, torch.eye(11)), teacher, form="logits")
    rows = len(student) / GOLDEN["inputs"]["shape"][0] if case["tokens"] == "all" else 1  # a mean over sequences
    precision = {"abs": case["within"]} if "within" in case else {"rel": 2e-6}
    assert (loss * rows).item() == pytest.approx(case["value"], **precision)


def test_soft_cross_entropy_is_forward_kl_plus_the_entropy_of_the_teacher():
    student, teacher = inputs()
    gap = OFFERS["ce"].make()(student, teacher, form="logits") - OFFERS["kl"].make()(student, teacher)
    assert gap.item() == pytest.approx(GOLDEN["entropy_of_teacher"], rel=1e-6)
