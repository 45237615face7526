"""Accuracy, loss, calibration, agreement and churn against definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from kdmesh.hosts.classes import labels
from kdmesh.hosts.metrics import agreement, churn, measure, predictions
from kdmesh.metrics import ECE, Accuracy, Loss, own_classes


def quality(scores: torch.Tensor, y: torch.Tensor, **about: object) -> dict[str, float]:
    return measure({"accuracy": Accuracy(), "loss": Loss(), "ece": ECE()}, scores, y, **about)


def test_quality_of_logits_and_of_probabilities_is_the_same() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(50) % 4
    found = quality(logits, y)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, y).item())
    assert quality(logits.softmax(1), y, probs=True) == pytest.approx(found)


def test_calibration_error_of_a_hand_made_case() -> None:
    """Three right of four at confidence 0.9, one of two at 0.6: (4 * 0.15 + 2 * 0.1) / 6."""
    p = torch.tensor([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2, dtype=torch.float64)
    y = torch.tensor([0, 0, 0, 1, 0, 1])
    assert quality(p, y, probs=True)["ece"] == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)


@given(st.permutations(range(5)), st.integers(1, 5), st.integers(0, 99))
def test_some_classes_are_measured_as_all_are_where_the_rest_cannot_be_the_answer(order, count, seed) -> None:
    """Of the columns of all classes those that are not known have no probability, and their samples no finite loss."""
    classes, draw = order[:count], torch.Generator().manual_seed(seed)
    logits = torch.randn(40, count, generator=draw, dtype=torch.float64)
    y = torch.randint(5, (40,), generator=draw)
    whole = torch.full((40, 5), -torch.inf, dtype=torch.float64)
    whole[:, classes] = logits
    known = torch.tensor([number in classes for number in y.tolist()])
    found, full = quality(logits, y, classes=classes), quality(whole, y)
    assert found["accuracy"] == full["accuracy"]
    assert found["ece"] == pytest.approx(full["ece"])
    assert found["loss"] == pytest.approx(F.cross_entropy(whole[known], y[known]).item() if known.any() else 0.0)
    assert quality(logits.softmax(1), y, probs=True, classes=classes) == pytest.approx(found)
    assert torch.equal(predictions(logits, lambda scores: scores.argmax(1), classes), whole.argmax(1))


def test_labels_of_some_classes() -> None:
    y = torch.tensor([4, 2, 0, 4, -1])
    own, known = own_classes(y, [0, 4])
    assert own.tolist() == [1, 0, 0, 1, 0]
    assert known.tolist() == [True, False, True, True, False]
    assert labels(y, [0, 4]).weights.tolist() == [1.0, 0.0, 1.0, 1.0, 0.0]
    plain = labels(y, None)
    assert plain.value is y
    assert plain.weights is None


def test_a_certain_mistake_has_a_finite_loss() -> None:
    assert quality(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), probs=True)["loss"] == pytest.approx(87.3, abs=0.1)


@given(st.lists(st.lists(st.integers(0, 2), min_size=6, max_size=6), min_size=2, max_size=4))
def test_agreement_is_the_mean_over_pairs(rows: list[list[int]]) -> None:
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    expected = sum(sum(x == y for x, y in zip(a, b, strict=True)) / 6 for a, b in pairs) / len(pairs)
    assert agreement(torch.tensor(rows)) == pytest.approx(expected)


def test_one_source_agrees_with_itself_and_churn_needs_a_round_before() -> None:
    one = torch.tensor([[0, 1, 2, 2]])
    assert agreement(one) == 1.0
    assert churn(one, None) is None
    assert churn(one, torch.tensor([[0, 1, 1, 1]])) == 0.5
