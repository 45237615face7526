"""What becomes of the tail of top-k logits in a loss, and its gradient, against plain float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.builtin.objectives import _chunked
from kdmesh.builtin.objectives.forward_kl import ForwardKL
from kdmesh.builtin.objectives.jsd import JSD
from kdmesh.builtin.objectives.mse import MSE
from kdmesh.builtin.objectives.reverse_kl import ReverseKL
from kdmesh.signals.codecs import pack, restore
from kdmesh.signals.lazy import FactoredLogits, faced
from kdmesh.signals.sparse import RULES, TopKLogits


def logits(rows, columns, seed=0, scale=2.0, dtype=torch.float64):
    return scale * torch.randn(rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def outcomes(p, named, rule):
    """The masses that are compared of one distribution, by plain sums; ``named``: columns."""
    mass = sum(p[column] for column in named)
    if rule == "renormalise":
        return [p[column] / mass for column in named]
    if rule == "bucket":
        return [*(p[column] for column in named), *([sum(p) - mass] if len(named) < len(p) else [])]
    return None


def reference(teacher, student, k, rule, reverse):
    """The divergence of one row, from its definition: numbers, and the student's as a function to differentiate."""
    t, q = teacher.softmax(0), student.softmax(0)
    named = sorted(range(len(t)), key=lambda column: -t[column].item())[:k]
    if rule == "spread":
        rest = 1 - sum(t[column] for column in named)
        p = [t[column] if column in named else rest / (len(t) - k) for column in range(len(t))]
        one, other = p, list(q)
    else:
        one, other = outcomes(t, named, rule), outcomes(q, named, rule)
    pairs = zip(other, one, strict=True) if reverse else zip(one, other, strict=True)
    return sum(a * (a / b).log() for a, b in pairs)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("reverse", [False, True])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(columns=st.integers(1, 9), k=st.integers(1, 9), seed=st.integers(0, 99))
def test_loss_and_gradient_are_those_of_the_definition(rule, reverse, columns, k, seed):
    k, teacher = min(k, columns), logits(3, columns, seed)
    student = logits(3, columns, seed + 1).requires_grad_()
    expected = sum(reference(t, s, k, rule, reverse) for t, s in zip(teacher, student, strict=True)) / 3
    wanted = torch.autograd.grad(expected, student)[0]
    target = TopKLogits.top(teacher, k, rule)
    objective = ReverseKL() if reverse else ForwardKL()
    loss = objective(student, target)
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], wanted, atol=1e-9, rtol=1e-7)
    same = objective(teacher, target)
    assert rule == "spread" or abs(float(same)) < 1e-9  # nothing to learn where the student says the same


@pytest.mark.parametrize("rule", ["bucket", "renormalise"])
@pytest.mark.parametrize("objective", [ForwardKL(2.0), ReverseKL(), JSD(beta=0.3), MSE()])
def test_large_ones_are_compared_in_chunks_as_small_ones_are_whole(monkeypatch, rule, objective):
    hidden, weight = logits(12, 5, 1, dtype=torch.float32), logits(60, 5, 2, dtype=torch.float32)
    teacher, weights = logits(12, 60, 3, dtype=torch.float32), torch.rand(12)
    weights[4] = 0.0
    target = TopKLogits.top(teacher, 7, rule)
    found = []
    for large in (2**24, 100):
        monkeypatch.setattr(_chunked, "LARGE", large)
        monkeypatch.setattr(_chunked, "CHUNK", 300)
        parts = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        loss = objective(FactoredLogits(*parts), target, weights=weights)
        found.append((loss.detach(), *torch.autograd.grad(loss, parts)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    dense = (hidden @ weight.T).requires_grad_()
    torch.testing.assert_close(objective(*faced(dense, target), weights=weights), found[0][0], atol=1e-5, rtol=1e-4)


def test_a_truncated_divergence_below_zero_still_has_its_gradient():
    """q .6 and .4, p .9 and .1, k 1: without a tail the sum is negative, and a clamp at 0 takes its gradient."""
    teacher, student = torch.tensor([[0.9, 0.1]]).double().log(), torch.tensor([[0.6, 0.4]]).double().log()
    student.requires_grad_()
    truncated = 0.6 * math.log(0.6 / 0.9)
    assert truncated < 0
    loss = ReverseKL()(student, TopKLogits.top(teacher, 1, "bucket"))
    whole = 0.6 * math.log(0.6 / 0.9) + 0.4 * math.log(0.4 / 0.1)
    assert loss.item() == pytest.approx(whole) and whole == pytest.approx(0.3113, abs=1e-4)
    (gradient,) = torch.autograd.grad(loss, student)
    assert float(gradient.abs().min()) > 0.4


def test_a_bucket_never_says_more_than_the_whole_distribution():
    teacher, student = logits(50, 40, 1), logits(50, 40, 2)
    whole = float(ForwardKL()(student, teacher))
    found = [float(ForwardKL()(student, TopKLogits.top(teacher, k, "bucket"))) for k in (1, 4, 16, 39, 40)]
    assert found == sorted(found) and found[0] < 0.8 * whole
    assert found[-2] == pytest.approx(whole) and found[-1] == pytest.approx(whole)  # 39 and one other are all


def test_rules_stay_as_it_crosses_narrows_and_is_taken():
    teacher = logits(6, 20)
    target = TopKLogits.top(teacher, 15, "bucket")
    for one in (target.take(torch.arange(6)), restore(*pack(target)), target.joined([target]), target.to("cpu")):
        assert one.rule == "bucket" and one.partial
    few = target.narrow(8)
    student = logits(6, 8, 5).requires_grad_()
    loss = ForwardKL()(student, few)
    expected = ForwardKL()(student, TopKLogits.top(teacher[:, :8], 8))
    assert loss.isfinite() and loss.item() <= expected.item() + 1e-9
    assert torch.autograd.grad(loss, student)[0].isfinite().all()
    with pytest.raises(ValueError, match="'clamp' is no rule for a tail: spread, bucket, renormalise"):
        TopKLogits.top(teacher, 2, "clamp")
    with pytest.raises(ValueError, match="differ in shape"):
        faced(logits(6, 21), target)


def test_a_student_that_rules_out_all_others_has_a_finite_gradient():
    teacher, student = logits(2, 6), logits(2, 6, 1)
    target = TopKLogits.top(teacher, 2, "bucket")
    student[0] = student[0].masked_fill(
        torch.ones(6, dtype=torch.bool).scatter(0, target.index[0].long(), False), -torch.inf
    )
    student.requires_grad_()
    loss = ReverseKL()(student, target)
    assert loss.isfinite() and torch.autograd.grad(loss, student)[0].isfinite().all()
