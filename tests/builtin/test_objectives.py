"""Objectives between logits, distributions and labels: formulas, bits, gradients, silent samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional as F

from kdmesh.builtin.objectives.offers import OBJECTIVES
from kdmesh.objectives import (
    JSD,
    MAE,
    MSE,
    CrossEntropy,
    ForwardKL,
    ReverseKL,
    SkewedKL,
    SkewedReverseKL,
    TotalVariation,
)

SEEDS = st.integers(0, 2**31 - 1)
CASES = {
    "ce labels": (CrossEntropy(label_smoothing=0.1), "labels"),
    "ce logits": (CrossEntropy(temperature=3), "logits"),
    "ce probs": (CrossEntropy(temperature=3), "probs"),
    "kl logits": (ForwardKL(temperature=2), "logits"),
    "kl probs": (ForwardKL(temperature=2), "probs"),
    "reverse_kl logits": (ReverseKL(temperature=2), "logits"),
    "reverse_kl probs": (ReverseKL(temperature=2), "probs"),
    "jsd logits": (JSD(beta=0.3, temperature=2), "logits"),
    "jsd probs": (JSD(beta=0.3, temperature=2), "probs"),
    "jsd at 0": (JSD(beta=0), "logits"),
    "jsd at 1": (JSD(beta=1), "probs"),
    "skewed_kl logits": (SkewedKL(skew=0.2, temperature=2), "logits"),
    "skewed_kl probs": (SkewedKL(skew=0.2, temperature=2), "probs"),
    "skewed_kl at 0": (SkewedKL(skew=0), "logits"),
    "skewed_reverse_kl logits": (SkewedReverseKL(skew=0.2, temperature=2), "logits"),
    "skewed_reverse_kl probs": (SkewedReverseKL(skew=0.2, temperature=2), "probs"),
    "skewed_reverse_kl at 0": (SkewedReverseKL(skew=0), "probs"),
    "total_variation logits": (TotalVariation(temperature=2), "logits"),
    "total_variation probs": (TotalVariation(temperature=2), "probs"),
    "mse": (MSE(), "logits"),
    "mse per element": (MSE(per_element=True), "logits"),
    "mae": (MAE(), "logits"),
    "mae per element": (MAE(per_element=True), "logits"),
}
each_case = pytest.mark.parametrize(("objective", "form"), CASES.values(), ids=CASES)
DIVERGENCES = {name: case for name, case in CASES.items() if not name.startswith("ce")}


def signals(form, seed=0, batch=6, classes=5, dtype=torch.float32):
    """A student's logits and a target of this form."""
    generator = torch.Generator().manual_seed(seed)
    student = 2 * torch.randn(batch, classes, generator=generator, dtype=dtype)
    target = 2 * torch.randn(batch, classes, generator=generator, dtype=dtype)
    return student, {"logits": target, "probs": target.softmax(-1), "labels": target.argmax(-1)}[form]


def by_hand(name, s, t, form):
    """The formulas in numpy, in float64."""
    s, t = s.double().numpy(), t.double().numpy() if form != "labels" else t.numpy()
    temperature = 1 if " at " in name else 3 if name.startswith("ce") else 2

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(-1, keepdims=True)

    if form == "labels":
        smooth = np.eye(s.shape[1])[t] * 0.9 + 0.1 / s.shape[1]
        return -(smooth * np.log(softmax(s))).sum() / len(s)
    q = softmax(s / temperature)
    p = t if form == "probs" else softmax(t / temperature)
    beta = {"jsd at 0": 0.0, "jsd at 1": 1.0}.get(name, 0.3)
    m = beta * p + (1 - beta) * q
    forward, reverse = p * np.log(p / q), q * np.log(q / p)
    elements = {
        "ce": -p * np.log(q),
        "kl": forward,
        "reverse_kl": reverse,
        "jsd": beta * p * np.log(p / m) + (1 - beta) * q * np.log(q / m),
        "skewed_kl": p * np.log(p / (0.2 * p + 0.8 * q)),
        "skewed_reverse_kl": q * np.log(q / (0.2 * q + 0.8 * p)),
        "total_variation": np.abs(p - q) / 2,
    }[name.split()[0]]
    ends = {"jsd at 0": forward, "jsd at 1": reverse, "skewed_kl at 0": forward, "skewed_reverse_kl at 0": reverse}
    elements = ends.get(name, elements)
    return elements.sum() / len(s) * temperature**2


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("m")])
def test_formula(name):
    objective, form = CASES[name]
    student, target = signals(form, dtype=torch.float64)
    assert objective(student, target, form=form).item() == pytest.approx(
        by_hand(name, student, target, form), rel=1e-12
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7, 4.0])
def test_plain_expressions_bit_for_bit(temperature):
    s, t = signals("logits", batch=33, classes=10)
    log_s, log_t = F.log_softmax(s / temperature, -1), F.log_softmax(t / temperature, -1)
    p, t2 = F.softmax(t / temperature, -1), temperature**2
    kl = F.kl_div(log_s, p, reduction="batchmean")
    assert torch.equal(ForwardKL(temperature)(s, t), kl * temperature**2)
    assert torch.equal(ForwardKL(temperature, t2_scale=False)(s, t), kl)
    assert torch.equal(ForwardKL(temperature)(s, p, form="probs"), kl * t2)
    assert torch.equal(ForwardKL(temperature)(s, t.clone().requires_grad_()), kl * t2)
    reverse = F.kl_div(log_t, log_s, reduction="batchmean", log_target=True)
    assert torch.equal(ReverseKL(temperature)(s, t), reverse * t2)
    assert torch.equal(
        CrossEntropy(temperature=temperature)(s, t, form="logits"), F.cross_entropy(s / temperature, p) * t2
    )


def test_plain_distances_and_labels_bit_for_bit():
    s, t = signals("logits", batch=33, classes=10)
    y = t.argmax(-1)
    assert torch.equal(CrossEntropy()(s, y), F.cross_entropy(s, y))
    assert torch.equal(CrossEntropy(label_smoothing=0.2)(s, y), F.cross_entropy(s, y, label_smoothing=0.2))
    assert torch.equal(MSE()(s, t), F.mse_loss(s, t, reduction="sum") / 33)
    assert torch.equal(MSE(per_element=True)(s, t), F.mse_loss(s, t))
    assert torch.equal(MAE()(s, t), F.l1_loss(s, t, reduction="sum") / 33)
    assert torch.equal(MAE(per_element=True)(s, t), F.l1_loss(s, t))


@each_case
def test_gradients_of_student_and_target(objective, form):
    student, target = signals(form, batch=3, classes=4, dtype=torch.float64)
    weights = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    free = [student.requires_grad_(), *([target.requires_grad_()] if form != "labels" else [])]

    def loss(*sides, weights=None):
        return objective(sides[0], sides[1] if len(sides) > 1 else target, form=form, weights=weights)

    assert torch.autograd.gradcheck(loss, free)
    assert torch.autograd.gradcheck(lambda *sides: loss(*sides, weights=weights), free)


@pytest.mark.parametrize(("objective", "form"), DIVERGENCES.values(), ids=DIVERGENCES)
def test_zero_at_equality_and_positive_elsewhere(objective, form):
    student, target = signals(form, dtype=torch.float64)
    same = student if form == "logits" else (student / objective.temperature).softmax(-1)
    assert abs(objective(student, same, form=form).item()) < 1e-14
    assert objective(student, target, form=form).item() > 0.01


@each_case
def test_samples_of_weight_zero_do_not_matter(objective, form):
    student, target = signals(form)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.5, 1.0])
    clean = student.clone().requires_grad_()
    expected = objective(clean, target, form=form, weights=weights)
    expected.backward()
    spoiled, broken = student.clone(), target.clone()
    spoiled[1], spoiled[3] = float("nan"), float("inf")
    broken[1] = -100 if form == "labels" else float("nan")
    spoiled.requires_grad_()
    if form != "labels":
        broken.requires_grad_()
    loss = objective(spoiled, broken, form=form, weights=weights)
    loss.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(spoiled.grad, clean.grad)
    assert not spoiled.grad[[1, 3]].any()
    if form != "labels":
        assert broken.grad.isfinite().all()


@each_case
def test_weights_scale_single_samples(objective, form):
    student, target = signals(form, dtype=torch.float64)
    weights = torch.rand(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    singles = torch.stack([objective(student[[i]], target[[i]], form=form) for i in range(6)])
    torch.testing.assert_close(objective(student, target, form=form, weights=weights), (weights * singles).sum() / 6)
    ones = objective(student, target, form=form, weights=torch.ones(6))
    torch.testing.assert_close(ones, objective(student, target, form=form))


@each_case
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_invariant_to_doubling_and_to_the_order_of_samples_and_classes(objective, form, seed):
    student, target = signals(form, seed, dtype=torch.float64)
    loss = objective(student, target, form=form)
    torch.testing.assert_close(objective(torch.cat([student] * 2), torch.cat([target] * 2), form=form), loss)
    torch.testing.assert_close(objective(student.flip(0), target.flip(0), form=form), loss)
    mirrored = 4 - target if form == "labels" else target.flip(1)
    torch.testing.assert_close(objective(student.flip(1), mirrored, form=form), loss)


@each_case
def test_half_precision_is_computed_in_float32(objective, form):
    student, target = signals(form)
    student = student.bfloat16()
    target = target if form == "labels" else target.bfloat16()
    loss = objective(student, target, form=form)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, objective(student.float(), target if form == "labels" else target.float(), form=form))


@pytest.mark.parametrize("kind", [ForwardKL, ReverseKL, JSD, CrossEntropy, SkewedKL, SkewedReverseKL, TotalVariation])
@pytest.mark.parametrize("form", ["logits", "probs"])
def test_extreme_logits_stay_finite_with_gradients_through_the_target(kind, form):
    student = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    raw = torch.tensor([[-300.0, 300.0, 0.0]], requires_grad=True)
    loss = kind()(student, raw if form == "logits" else raw.softmax(-1), form=form)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert raw.grad.isfinite().all()


def test_ends_of_the_jensen_shannon_divergence_and_its_jump():
    s, t = signals("logits", dtype=torch.float64)
    torch.testing.assert_close(JSD(beta=0, temperature=2)(s, t), ForwardKL(2)(s, t))
    torch.testing.assert_close(JSD(beta=1, temperature=2)(s, t), ReverseKL(2)(s, t))
    torch.testing.assert_close(JSD(beta=1e-7)(s, t) / 1e-7, ForwardKL()(s, t), rtol=1e-5, atol=0)
    torch.testing.assert_close(JSD()(s, t), JSD()(t, s))
    torch.testing.assert_close(JSD(beta=0.1)(s, t), JSD(beta=0.9)(t, s))


def test_temperature_leaves_labels_alone():
    s, y = signals("labels")
    assert torch.equal(CrossEntropy(temperature=5)(s, y, form="labels"), CrossEntropy()(s, y))


def test_t2_scale_keeps_the_gradient_at_high_temperature():
    s, t = signals("logits", dtype=torch.float64)
    s, t = s - s.mean(-1, keepdim=True), t - t.mean(-1, keepdim=True)
    s.requires_grad_()
    ForwardKL(temperature=1e5)(s, t).backward()
    torch.testing.assert_close(s.grad, (s - t).detach() / 5 / len(s), rtol=1e-3, atol=1e-6)  # Hinton et al., equation 4


@pytest.mark.parametrize("objective", [ForwardKL(), ReverseKL(), JSD(), SkewedKL(), TotalVariation(), MSE(), MAE()])
def test_refuses_forms_and_shapes_it_does_not_read(objective):
    s, t = signals("logits")
    # mse and mae read labels that are values, a row of as many as there are outputs
    unread = "differ in shape" if isinstance(objective, MSE | MAE) else r"reads .*logits.*, not labels"
    with pytest.raises(ValueError, match=unread):
        objective(s, t.argmax(-1), form="labels")
    with pytest.raises(ValueError, match=r"student \[6, 5\] and target \[6, 1\] differ in shape"):
        objective(s, t[:, :1])


def test_a_label_outside_the_classes_is_an_error_and_not_left_out():
    s, y = signals("labels")
    y[2] = -100
    with pytest.raises(IndexError, match="out of bounds"):
        CrossEntropy()(s, y)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("kl", {"temperature": 0}),
        ("kl", {"temperature": float("inf")}),
        ("jsd", {"beta": 1.1}),
        ("skewed_kl", {"skew": 1}),
        ("skewed_reverse_kl", {"skew": -0.1}),
        ("ce", {"label_smoothing": 1.0}),
        ("mse", {"temperature": 2}),
        ("hint", {"adapter": "never"}),
        ("attention", {"p": 0}),
    ],
)
def test_offers_refuse_settings_out_of_bounds(name, config):
    offer = next(offer for offer in OBJECTIVES if offer.name == name)
    with pytest.raises(ValidationError):
        offer.make(config)


@pytest.mark.parametrize("offer", OBJECTIVES, ids=lambda offer: offer.name)
def test_offers_are_described_and_made_with_their_defaults(offer):
    objective = offer.make()
    assert offer.tempered == hasattr(objective, "temperature")
    assert offer.summary
    assert all(field.description for field in offer.config.model_fields.values())
    assert not list(objective.parameters())


@each_case
def test_no_samples_are_a_loss_of_zero(objective, form):
    student, target = signals(form)
    student.requires_grad_()
    for weights in (None, torch.ones(0)):
        loss = objective(student[:0], target[:0], form=form, weights=weights)
        loss.backward()
        assert loss == 0 and not student.grad.any()
