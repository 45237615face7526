"""Logits of -inf anywhere: every objective, however it is computed, against autograd of its definition in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives import _chunked
from kdmesh.objectives import (
    JSD,
    MAE,
    MSE,
    Aligned,
    CrossEntropy,
    ForwardKL,
    ReverseKL,
    SkewedKL,
    SkewedReverseKL,
    TotalVariation,
    Universal,
    lazily,
)
from kdmesh.signals import lazy
from kdmesh.signals.lazy import FactoredLogits
from kdmesh.signals.sparse import TopKLogits

ROWS, COLUMNS, NEVER = 4, 5, -math.inf


def times(a: Tensor, log_b: Tensor) -> Tensor:
    """``a log b``, 0 where a is 0."""
    return torch.where(a == 0, 0.0, a * torch.where(a == 0, 0.0, log_b))


def logs(a: Tensor) -> Tensor:
    return torch.where(a == 0, 1.0, a).log()


def divergence(a: Tensor, log_a: Tensor, log_b: Tensor) -> Tensor:
    return times(a, log_a) - times(a, log_b)


def mixed(a: Tensor, b: Tensor, share: float) -> Tensor:
    """``log(share a + (1 - share) b)``; where both are 0 nobody asks."""
    return logs(share * a + (1 - share) * b)


def clamped(p: Tensor, log_p: Tensor) -> Tensor:
    return torch.where(p == 0, math.log(torch.finfo(p.dtype).tiny), log_p)


DEFINITIONS: dict[str, Any] = {
    "kl": (ForwardKL, {}, lambda q, lq, p, lp: divergence(p, lp, lq)),
    "ce": (CrossEntropy, {}, lambda q, lq, p, lp: -times(p, lq)),
    "reverse_kl": (ReverseKL, {}, lambda q, lq, p, lp: divergence(q, lq, clamped(p, lp))),
    "jsd": (
        JSD,
        {"beta": 0.3},
        lambda q, lq, p, lp: 0.3 * divergence(p, lp, mixed(p, q, 0.3)) + 0.7 * divergence(q, lq, mixed(p, q, 0.3)),
    ),
    "jsd 0": (JSD, {"beta": 0.0}, lambda q, lq, p, lp: divergence(p, lp, lq)),
    "jsd 1": (JSD, {"beta": 1.0}, lambda q, lq, p, lp: divergence(q, lq, clamped(p, lp))),
    "skewed": (SkewedKL, {"skew": 0.2}, lambda q, lq, p, lp: divergence(p, lp, mixed(p, q, 0.2))),
    "skewed 0": (SkewedKL, {"skew": 0.0}, lambda q, lq, p, lp: divergence(p, lp, lq)),
    "skewed reverse": (SkewedReverseKL, {"skew": 0.2}, lambda q, lq, p, lp: divergence(q, lq, mixed(q, p, 0.2))),
    "skewed reverse 0": (SkewedReverseKL, {"skew": 0.0}, lambda q, lq, p, lp: divergence(q, lq, clamped(p, lp))),
    "total variation": (TotalVariation, {}, lambda q, lq, p, lp: (p - q).abs() / 2),
}
UNBOUNDED = {"kl", "ce", "jsd 0", "skewed 0"}


def defined(name: str, temperature: float, student: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """The loss by its definition, through which autograd passes."""
    log_q, log_p = ((side / temperature).log_softmax(-1) for side in (student, target))
    each = DEFINITIONS[name][2](log_q.exp(), log_q, log_p.exp(), log_p).sum(-1) * temperature**2
    each = each if weights is None else torch.where(weights == 0, 0.0, each * weights)
    return each.sum() / len(student)


def normal(*shape: int, seed: int) -> Tensor:
    return 1.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def computed(way: str, objective: Any, student: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """The loss as the engine computes it."""
    form = "logits"
    if way.endswith("probs"):
        target, form = (target / objective.temperature).softmax(-1), "probs"
    if way == "chunked top":
        return lazily(objective, student, TopKLogits.top(target, 2), form=form, weights=weights)
    if way.startswith("chunked"):
        return lazily(objective, student, Rows(target), form=form, weights=weights)
    loss: Tensor = objective(student, target, form=form, weights=weights)
    return loss


class Rows(lazy.Lazy):
    """A lazy target of rows that exist."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        super().__init__(values.shape, values.dtype, values.device, False)

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        return self.values[start:stop] if out is None else out.copy_(self.values[start:stop])

    def leaves(self) -> tuple[Tensor, ...]:
        return (self.values,)

    def of(self, *rows: Tensor) -> Rows:
        return Rows(rows[0])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything lazy is large, chunks have two rows, blocks one."""
    monkeypatch.setattr(_chunked, "LARGE", 0)
    monkeypatch.setattr(_chunked, "CHUNK", 2 * 2 * COLUMNS)
    monkeypatch.setattr(lazy, "BLOCK", COLUMNS)


def of_rows(loss: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def compare(name: str, way: str, temperature: float, student: Tensor, target: Tensor, weights: Any) -> None:
    """Value and gradients, and that no number is finite that should not be."""
    objective = DEFINITIONS[name][0](temperature=temperature, **DEFINITIONS[name][1])
    leaf = student.clone().requires_grad_()
    found = of_rows(computed(way, objective, leaf, target, weights), leaf)
    twin = TopKLogits.top(target, 2).dense() if way == "chunked top" else target
    expected = of_rows(defined(name, temperature, leaf, twin, weights), leaf)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-10, equal_nan=True)
    whole = (student > NEVER).any(1) & (twin > NEVER).any(1)  # of others there is no gradient to speak of
    torch.testing.assert_close(found[1][whole], expected[1][whole], rtol=1e-9, atol=1e-10)


WAYS = ("plain", "plain probs", "chunked", "chunked probs", "chunked top")
cells = st.lists(st.booleans(), min_size=ROWS * COLUMNS, max_size=ROWS * COLUMNS)


@pytest.mark.parametrize("name", DEFINITIONS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    way=st.sampled_from(WAYS),
    temperature=st.sampled_from([1.0, 2.5]),
    own=cells,
    theirs=cells,
    kind=st.sampled_from(["apart", "same", "student", "target", "columns"]),
    weighted=st.booleans(),
    seed=st.integers(0, 99),
)
@example("chunked", 2.5, [True, *[False] * 19], [False] * 20, "student", False, 0)  # mass where the student has none
@example("plain", 1.0, [True, *[False] * 19], [True, *[False] * 19], "apart", True, 0)
@example("plain", 2.5, [True] * 5 + [False] * 15, [False] * 20, "apart", False, 0)  # a row that says nothing
@example("chunked", 2.5, [False] * 20, [True] * 5 + [False] * 15, "apart", True, 0)
def test_every_mask(
    name: str,
    way: str,
    temperature: float,
    own: list[bool],
    theirs: list[bool],
    kind: str,
    weighted: bool,
    seed: int,
) -> None:
    mine, other = (torch.tensor(mask).view(ROWS, COLUMNS) for mask in (own, theirs))
    if kind == "columns":
        mine, other = (mask[:1].expand(ROWS, COLUMNS) for mask in (mine, other))
    student = normal(ROWS, COLUMNS, seed=seed)
    target = normal(ROWS, COLUMNS, seed=seed + 100)
    if kind != "target":
        student = student.masked_fill(mine, NEVER)
    if kind != "student":
        target = target.masked_fill(mine if kind == "same" else other, NEVER)
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0], dtype=torch.float64) if weighted else None
    if weights is not None:
        student[1] = NEVER  # of a silent row nothing counts
    compare(name, way, temperature, student, target, weights)


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("masked", ["student", "target", "both"])
def test_a_factored_student_and_target(name: str, masked: str) -> None:
    """Classes ruled out by the layers' biases; gradients of hidden rows, layer and bias."""
    objective = DEFINITIONS[name][0](temperature=2.0, **DEFINITIONS[name][1])
    hidden, weight, bias = (normal(*shape, seed=n) for n, shape in enumerate([(ROWS, 3), (COLUMNS, 3), (COLUMNS,)]))
    theirs = [normal(*shape, seed=5 + n) for n, shape in enumerate([(ROWS, 2), (COLUMNS, 2), (COLUMNS,)])]
    bias[1] = NEVER if masked != "target" else bias[1]
    theirs[2][1] = NEVER if masked != "student" else theirs[2][1]
    parts = [part.requires_grad_() for part in (hidden, weight, bias)]
    expected = defined(name, 2.0, F.linear(*parts), F.linear(*theirs), None)
    gradients = torch.autograd.grad(expected, parts)
    for chunk in (1, 10**6):  # a row at a time, and one chunk of all
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_chunked, "CHUNK", chunk)
            loss = objective(FactoredLogits(*parts), FactoredLogits(*theirs), form="logits")
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-10)
        assert loss.isinf() == (name in UNBOUNDED and masked == "student")
        for mine, other in zip(torch.autograd.grad(loss, parts), gradients, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("way", ["plain", "chunked"])
def test_labels_of_classes_that_are_ruled_out(smoothing: float, way: str) -> None:
    """As torch's: infinite for such a label, and under smoothing, which gives every class mass."""
    labels, student = torch.tensor([0, 1, 2, 3]), normal(ROWS, COLUMNS, seed=0)
    for column, infinite in ((4, smoothing > 0), (2, True)):
        leaf = student.clone().index_fill_(1, torch.tensor([column]), NEVER).requires_grad_()
        objective = CrossEntropy(smoothing)
        given = (objective, leaf, labels)
        loss = lazily(*given, form="labels", weights=None) if way == "chunked" else objective(leaf, labels)
        found = of_rows(loss, leaf)
        expected = of_rows(F.cross_entropy(leaf, labels, label_smoothing=smoothing), leaf)
        assert found[0].isinf() == infinite
        for mine, other in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("objective", [MSE(), MAE(), MSE(True), MAE(True)], ids=["mse", "mae", "mse each", "mae each"])
def test_distances_between_logits_are_infinite_where_one_side_rules_a_class_out_and_0_where_both_do(
    objective: Any,
) -> None:
    """A run stops at the one. The other is the end of a shorter list of candidates: there both say the same."""
    student, target = normal(ROWS, COLUMNS, seed=0), normal(ROWS, COLUMNS, seed=1)
    masked = [side.clone().index_fill_(1, torch.tensor([2]), NEVER) for side in (student, target)]
    alike = objective(*(side.clone().index_fill_(1, torch.tensor([2]), 0) for side in (student, target)))
    for own, other, loss in ((masked[0], target, NEVER), (student, masked[1], NEVER), (*masked, alike)):
        for found in (objective(own, other), lazily(objective, own, Rows(other), form="logits", weights=None)):
            torch.testing.assert_close(found, torch.as_tensor(loss, dtype=found.dtype).abs())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_lower_precision(name: str, dtype: torch.dtype) -> None:
    """Masks on both sides, apart and the same, are as in float64, to the precision of the logits."""
    student, target = normal(ROWS, COLUMNS, seed=0).to(dtype), normal(ROWS, COLUMNS, seed=1).to(dtype)
    student[0, 0] = target[0, 0] = target[1, 1] = NEVER  # reverse divergences are of this precision's smallest number
    for spoiled in (False, True):
        if spoiled:
            student[2, 3] = NEVER
        objective = DEFINITIONS[name][0](temperature=2.0, **DEFINITIONS[name][1])
        leaf = student.clone().requires_grad_()
        exact = student.detach().clone().float().requires_grad_()
        expected = of_rows(defined(name, 2.0, exact, target.float(), None), exact)
        assert expected[0].isinf() == (spoiled and name in UNBOUNDED)
        for way in ("plain", "chunked"):
            found = of_rows(computed(way, objective, leaf, target, None), leaf)
            torch.testing.assert_close(found[0], expected[0], rtol=2e-6, atol=1e-6)
            torch.testing.assert_close(found[1].float(), expected[1], rtol=2e-2, atol=2e-3)
            assert found[1].dtype == dtype


def test_mass_that_underflows_is_no_mass() -> None:
    """A target masked by a huge negative number, as transformers do, asks nothing of a student that says -inf."""
    student, target = normal(ROWS, COLUMNS, seed=0).float(), normal(ROWS, COLUMNS, seed=1).float()
    student[:, 2], target[:, 2] = NEVER, torch.finfo(torch.float32).min
    without = [torch.cat([side[:, :2], side[:, 3:]], 1) for side in (student, target)]
    for objective in (ForwardKL(2.0), CrossEntropy(temperature=2.0), JSD(beta=0.0), SkewedKL(0.0)):
        expected = objective(*without, form="logits")
        for way in ("plain", "chunked"):
            torch.testing.assert_close(computed(way, objective, student, target, None), expected)


def spans(rows: int) -> Tensor:
    """Each row a sample of one character."""
    each = torch.arange(rows)
    return torch.stack([each, torch.zeros_like(each), torch.ones_like(each)], 1)


@pytest.mark.parametrize("masked", ["student", "target", "both", "apart"])
def test_aligned_with_equal_vocabularies_is_the_forward_divergence(masked: str) -> None:
    student, target = normal(ROWS, COLUMNS, seed=0), normal(ROWS, COLUMNS, seed=1)
    if masked in ("student", "both", "apart"):
        student[:, 1] = NEVER
    if masked in ("target", "both"):
        target[:, 1] = NEVER
    if masked == "apart":
        target[:, 3] = NEVER
    objective, words = Aligned(temperature=2.0), [f"w{n}" for n in range(COLUMNS)]
    objective.setup(student.shape[1:], target.shape[1:], tokens=words, source_tokens=words)
    labels = torch.zeros(ROWS, dtype=torch.int64)
    more = {"spans": spans(ROWS), "source_spans": spans(ROWS), "labels": labels, "source_labels": labels}
    leaf = student.requires_grad_()
    found = of_rows(objective(leaf, target, **more), leaf)
    expected = of_rows(defined("kl", 2.0, leaf, target, None), leaf)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)
    assert found[0].isinf() == (masked in ("student", "apart"))


@pytest.mark.parametrize(("masked", "infinite"), [("student", True), ("target", False), ("both", False)])
@pytest.mark.parametrize("by", ["the rest", "a text"])
def test_aligned_events_that_are_ruled_out(by: str, masked: str, infinite: bool) -> None:
    """Of a shared word and the rest, all the rest; of a text of two tokens against one, a true token."""
    student, target = normal(2, 4, seed=0), normal(2, 4, seed=1)
    words, others = ["a", "b", "c", "d"], ["a", "x", "y", "z"]
    more: dict[str, Tensor] = {"spans": spans(2), "source_spans": spans(2)}
    labels = torch.tensor([0, 0])
    if by == "a text":
        more["spans"] = torch.tensor([[0, 0, 1], [0, 1, 2]])
        more["source_spans"], target = torch.tensor([[0, 0, 2]]), target[:1]
        labels = torch.tensor([1, 2])
    source_labels = labels[: len(target)]
    if masked != "target":
        student[:, 1:] = NEVER
    if masked != "student":
        target[:, 1:] = NEVER
    objective = Aligned()
    objective.setup(student.shape[1:], target.shape[1:], tokens=words, source_tokens=others)
    leaf = student.requires_grad_()
    for form, wanted in (("logits", target), ("probs", target.softmax(-1))):
        more |= {"labels": labels, "source_labels": source_labels}
        value, gradient = of_rows(objective(leaf, wanted, form=form, **more), leaf)
        assert value == math.inf if infinite else value.isfinite()
        assert gradient.isfinite().all()


def test_universal_sees_no_logarithm() -> None:
    """Distances between sorted probabilities are finite whatever is ruled out."""
    student, target = normal(ROWS, COLUMNS, seed=0), normal(ROWS, COLUMNS, seed=1)
    student[:, 1] = target[:, 3] = target[:, 4] = NEVER
    leaf = student.requires_grad_()
    more = {"spans": spans(ROWS), "source_spans": spans(ROWS)}
    value, gradient = of_rows(Universal()(leaf, target, **more), leaf)
    ranked = [side.softmax(-1).sort(-1, descending=True).values for side in (student, target)]
    torch.testing.assert_close(value, (ranked[0] - ranked[1]).abs().sum().detach() / ROWS)
    assert gradient.isfinite().all() and not gradient[:, 1].any()


@pytest.mark.parametrize("objective", [MSE(), MSE(per_element=True), MAE(), MAE(per_element=True)])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.5])])
def test_columns_that_both_rule_out_are_at_no_distance(objective, weights):
    student = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -torch.inf]], requires_grad=True)
    target = torch.tensor([[1.0, 1.0, -0.5], [0.0, 1.0, -torch.inf]])
    loss = objective(student, target, weights=weights)
    zeros = [torch.where(side.isfinite(), side, 0).detach() for side in (student, target)]
    assert torch.equal(loss, objective(*zeros, weights=weights))
    loss.backward()
    assert student.grad.isfinite().all() and student.grad[1, 2] == 0
    assert objective(torch.zeros(1, 2), torch.tensor([[0.0, -torch.inf]])) == torch.inf  # one side alone
