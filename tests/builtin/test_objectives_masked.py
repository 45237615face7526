"""Classes that cannot be: probabilities of 0 and logits of -inf, in values and gradients. 0 log 0 is 0."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdmesh.plugins import registry

NINF = -float("inf")
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "kl": [{"temperature": 2}],
    "ce": [{"temperature": 2}],
    "reverse_kl": [{"temperature": 2}],
    "jsd": [{"beta": 0.3, "temperature": 2}, {"beta": 0.0}, {"beta": 1.0}],
    "skewed_kl": [{"skew": 0.2, "temperature": 2}, {"skew": 0.0}],
    "skewed_reverse_kl": [{"skew": 0.2, "temperature": 2}, {"skew": 0.0}],
    "total_variation": [{"temperature": 2}],
}
CASES = [(name, config) for name, configs in SETTINGS.items() for config in configs]
BATCH, CLASSES, OUT = 4, 5, 2  # class 2 cannot be


def objective(name: str, config: dict[str, Any]) -> Any:
    """An objective with these settings, between logits unless another form is said."""
    made = registry().find("objectives", name).make(config)
    return functools.partial(made, form="logits")


def logits(seed: int, masked: bool) -> Tensor:
    values = 2 * torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if masked:
        values[:, OUT] = NINF
    return values


def with_gradient(loss: Any, student: Tensor, target: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = loss(student, target, **given)
    return value.detach(), torch.autograd.grad(value, student)[0]


def without(values: Tensor) -> Tensor:
    """The classes that can be."""
    return torch.cat([values[:, :OUT], values[:, OUT + 1 :]], 1)


@pytest.mark.parametrize(("name", "config"), CASES, ids=str)
def test_a_class_that_neither_side_knows_is_as_if_it_were_not_there(name: str, config: dict[str, Any]) -> None:
    loss = objective(name, config)
    student, target = logits(0, True), logits(1, True)
    value, gradient = with_gradient(loss, student, target)
    expected, expected_gradient = with_gradient(loss, without(student), without(target))
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(without(gradient), expected_gradient, rtol=1e-10, atol=1e-12)
    assert not gradient[:, OUT].any()


@pytest.mark.parametrize(("name", "config"), CASES, ids=str)
@pytest.mark.parametrize("masked", [(True, True), (True, False), (False, True)], ids=["both", "student", "target"])
def test_values_and_gradients_are_finite(name: str, config: dict[str, Any], masked: tuple[bool, bool]) -> None:
    """But for mass where only the student says never, which a forward divergence is infinite at."""
    loss = objective(name, config)
    forward = name in ("kl", "ce") or (name, config) in (("jsd", {"beta": 0.0}), ("skewed_kl", {"skew": 0.0}))
    infinite = forward and masked == (True, False)
    for dtype in (torch.float64, torch.float32):
        student, target = (logits(seed, out).to(dtype) for seed, out in enumerate(masked))
        for weights in (None, torch.tensor([1.0, 0.0, 0.5, 2.0], dtype=dtype)):
            value, gradient = with_gradient(loss, student, target, weights=weights)
            assert (value == float("inf") if infinite else value.isfinite()) and gradient.isfinite().all()
            assert value > -1e-6
            if infinite:
                continue
            through = target.clone().requires_grad_()
            loss(student, through, weights=weights).backward()
            assert through.grad is None or through.grad.isfinite().all()


@pytest.mark.parametrize(("name", "config"), CASES, ids=str)
def test_a_target_that_rules_a_class_out_says_so_by_logits_as_by_probabilities(
    name: str, config: dict[str, Any]
) -> None:
    loss = objective(name, config)
    student, target = logits(0, False), logits(1, True)
    probs = (target / config.get("temperature", 1)).softmax(-1)
    assert not probs[:, OUT].any()
    for found, expected in zip(
        with_gradient(loss, student, target), with_gradient(loss, student, probs, form="probs"), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    leaf = student.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda own: loss(own, target), (leaf,))


def test_zero_log_zero_is_zero_in_the_formulas() -> None:
    """By hand, with xlogy, for a target that gives a class nothing."""
    student, target = logits(0, False), logits(1, True)
    q, p = student.softmax(-1), target.softmax(-1)
    m = (p + q) / 2

    def divergence(a: Tensor, b: Tensor) -> Tensor:
        return (torch.xlogy(a, a) - torch.xlogy(a, b)).sum() / BATCH

    expected = {
        ("kl", ()): divergence(p, q),
        ("jsd", (("beta", 0.5),)): (divergence(p, m) + divergence(q, m)) / 2,
        ("skewed_kl", (("skew", 0.2),)): divergence(p, 0.2 * p + 0.8 * q),
        ("skewed_reverse_kl", (("skew", 0.2),)): divergence(q, 0.2 * q + 0.8 * p),
        ("total_variation", ()): (p - q).abs().sum() / 2 / BATCH,
        ("ce", ()): F.cross_entropy(student, p),
    }
    for (name, config), value in expected.items():
        loss = objective(name, {"temperature": 1.0, **dict(config)})
        torch.testing.assert_close(loss(student, target), value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize(("name", "config"), CASES, ids=str)
@pytest.mark.parametrize("masked", [(True, True), (False, True)], ids=["both", "target"])
def test_the_closed_forms_agree(name: str, config: dict[str, Any], masked: tuple[bool, bool]) -> None:
    """What is computed in chunks over a large vocabulary."""
    loss = objective(name, config)
    student, target = (logits(seed, out) for seed, out in enumerate(masked))
    value, gradient = with_gradient(loss, student, target)
    rows, spare = student.clone(), torch.empty(4, BATCH, CLASSES, dtype=torch.float64)
    factors = torch.full((BATCH,), 1 / BATCH, dtype=torch.float64)
    total = loss.func.loss_and_gradient(rows, target.clone(), "logits", factors, spare)
    torch.testing.assert_close(total, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(rows, gradient, rtol=1e-9, atol=1e-12)
