"""Losses over a large vocabulary, chunk by chunk: equal to the dense ones, in value and in every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kdmesh.builtin.objectives import _chunked
from kdmesh.objectives import (
    JSD,
    MAE,
    MSE,
    CrossEntropy,
    ForwardKL,
    Objective,
    ReverseKL,
    SkewedKL,
    SkewedReverseKL,
    Tempered,
    TotalVariation,
    batchmean,
    lazily,
)
from kdmesh.signals import lazy
from kdmesh.signals.lazy import FactoredLogits, MixedLogits

WORDS, DIM = 13, 5


class Squares(Tempered):
    """A divergence without a gradient of its own."""

    def elements(self, log_q, target, form):
        return (log_q.exp() - (target if form == "probs" else (target / self.temperature).softmax(-1))) ** 2


class Bent(ForwardKL):
    """Other elements, under the gradient of what it inherits from."""

    def elements(self, log_q, target, form):
        return super().elements(log_q, target, form) + log_q.exp() ** 2


class Marked(Objective):
    """Rows that depend on facts of their own."""

    def forward(self, student, target, *, form="logits", weights=None, labels=None):
        if not isinstance(student, torch.Tensor):
            return lazily(self, student, target, form=form, weights=weights, labels=labels)
        return batchmean((student - target) ** 2 * labels[:, None], weights)


DIVERGENCES = [
    *(kind(temperature=t) for kind in (ForwardKL, ReverseKL, JSD, SkewedKL, SkewedReverseKL) for t in (1.0, 2.5)),
    *(kind(temperature=t, t2_scale=False) for kind in (TotalVariation, CrossEntropy, Squares) for t in (1.0, 2.5)),
    *(JSD(beta=beta, temperature=0.7) for beta in (0.0, 0.1, 1.0)),
    *(kind(skew=skew, temperature=2) for kind in (SkewedKL, SkewedReverseKL) for skew in (0.0, 0.6)),
    Bent(2.0),
]
CASES = [(objective, form) for objective in DIVERGENCES for form in ("logits", "probs")]
CASES += [(CrossEntropy(smoothing, temperature=3), "labels") for smoothing in (0.0, 0.1)]
CASES += [(kind(per_element), "logits") for kind in (MSE, MAE) for per_element in (False, True)]
each_case = pytest.mark.parametrize(
    ("objective", "form"), CASES, ids=[f"{type(o).__name__}-{n}-{form}" for n, (o, form) in enumerate(CASES)]
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Everything is large, chunks have few rows, blocks fewer."""
    monkeypatch.setattr(_chunked, "LARGE", 0)
    monkeypatch.setattr(_chunked, "CHUNK", 2 * 3 * WORDS)
    monkeypatch.setattr(lazy, "BLOCK", 2 * WORDS)


def normal(*shape, seed=0, dtype=torch.float64):
    return 1.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def student(rows=8, dtype=torch.float64, seed=0, bias=True):
    """A lazy student, whose parts want gradients."""
    parts = [
        normal(*shape, seed=seed + n, dtype=dtype) for n, shape in enumerate([(rows, DIM), (WORDS, DIM), (WORDS,)])
    ]
    parts = [part.requires_grad_() for part in (parts if bias else parts[:2])]
    return FactoredLogits(*parts), parts


def target(form, objective, rows=8, dtype=torch.float64):
    """A target, lazy where it can be, and dense."""
    made = FactoredLogits(normal(rows, 4, seed=7, dtype=dtype), normal(WORDS, 4, seed=8, dtype=dtype))
    if form == "labels":
        labels = made.dense().argmax(-1)
        return labels, labels
    if form == "logits":
        return made, made.dense()
    t = objective.temperature
    other = normal(rows, WORDS, seed=9, dtype=dtype)
    mixed = MixedLogits([made, other], lambda chunks, where: (torch.stack(chunks) / t).softmax(-1).mean(0))
    return mixed, mixed.dense()


def results(objective, own, wanted, parts, form, weights=None, scale=1.0, **facts):
    """The loss and the gradients of the parts."""
    loss = objective.forward(own, wanted, form=form, weights=weights, **facts)
    return loss.detach(), torch.autograd.grad(loss * scale, parts)


def same(found, expected, **tolerance):
    torch.testing.assert_close(found[0], expected[0], **tolerance)
    for mine, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(mine, other, **tolerance)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that an operation gives."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.numel())
        return out


@each_case
def test_no_tensor_is_as_large_as_the_logits(objective, form):
    own, _ = student(200)
    wanted, _ = target(form, objective, 200)
    wanted = wanted.detach()  # made anew, without what the test has made of it
    with Largest() as seen:
        objective.forward(own, wanted, form=form).backward()
    assert seen.size < 200 * WORDS / 2
    assert own._dense is None


def test_one_signal_of_several_flows_has_the_gradients_of_all():
    """A student's rows under labels and two divergences, of which two read one target; weights and factors differ."""
    own, parts = student(200)
    wanted, plain = target("logits", ForwardKL(), 200)
    wanted = wanted.detach()  # made anew, without what the test has made of it
    labels = plain.argmax(-1)
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0], dtype=torch.float64).repeat(50)
    flows = [
        (0.2, CrossEntropy(0.1), "labels", None),
        (0.3, ForwardKL(temperature=2), "logits", weights),
        (0.5, JSD(beta=0.3), "logits", None),
    ]

    def summed(mine, other):
        losses = [
            factor * objective.forward(mine, labels if form == "labels" else other, form=form, weights=weight)
            for factor, objective, form, weight in flows
        ]
        total = torch.stack(losses).sum()
        return total.detach(), torch.autograd.grad(total, parts)

    with Largest() as seen:
        found = summed(own, wanted)
    assert seen.size < 200 * WORDS / 2
    same(found, summed(F.linear(*parts), plain))


@each_case
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_dense_loss_in_value_and_gradients(objective, form, weighted):
    own, parts = student()
    wanted, plain = target(form, objective)
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0, 0.0, 1.0, 0.3, 1.0], dtype=torch.float64) if weighted else None
    expected = results(objective, F.linear(*parts), plain, parts, form, weights)
    same(results(objective, own, wanted, parts, form, weights), expected)
    same(results(objective, own, plain, parts, form, weights), expected)  # a target that exists


@each_case
def test_logits_that_exist_against_a_lazy_target(objective, form):
    wanted, plain = target(form, objective)
    logits = normal(8, WORDS, seed=5).requires_grad_()
    before = logits.detach().clone()
    loss = lazily(objective, logits, wanted, form=form, weights=None)
    expected = results(objective, logits, plain, [logits], form)
    same((loss.detach(), torch.autograd.grad(loss, [logits])), expected)
    assert torch.equal(logits, before)


def test_what_exists_is_not_changed():
    own, _ = student()
    made = normal(8, WORDS, seed=3)
    for wanted, form in ((made, "logits"), (made.softmax(-1), "probs")):
        before = wanted.clone()
        for objective in DIVERGENCES:
            objective.forward(own, wanted, form=form).backward()
        assert torch.equal(wanted, before)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 9),
    chunk=st.integers(1, 12 * WORDS),
    block=st.integers(1, 5 * WORDS),
    which=st.integers(0, len(CASES) - 1),
    bias=st.booleans(),
    silent=st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_boundaries_of_chunks_and_blocks_change_nothing(rows, chunk, block, which, bias, silent):
    objective, form = CASES[which]
    own, parts = student(rows, bias=bias)
    wanted, plain = target(form, objective, rows)
    weights = torch.where(torch.tensor(silent[:rows]), 0.0, 0.7).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chunked, "CHUNK", chunk)
        patch.setattr(lazy, "BLOCK", block)
        found = results(objective, own, wanted, parts, form, weights)
    same(found, results(objective, F.linear(*parts), plain, parts, form, weights))


@each_case
def test_no_rows_and_only_silent_rows_cost_nothing(objective, form):
    for rows, weights in ((0, None), (0, torch.zeros(0)), (4, torch.zeros(4))):
        own, parts = student(rows)
        wanted, plain = target(form, objective, rows)
        for mine, other in ((own, wanted), (F.linear(*parts), plain)):
            loss, gradients = results(objective, mine, other, parts, form, weights)
            assert loss == 0 and not any(part.any() for part in gradients)


@each_case
def test_silent_rows_may_hold_anything(objective, form):
    own, parts = student(3)
    _, plain = target(form, objective, 3)
    weights = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    expected = results(objective, own, plain, parts, form, weights)
    spoiled, broken = parts[0].detach().clone(), plain.clone()
    spoiled[1], broken[1] = float("nan"), -100 if form == "labels" else float("inf")
    parts[0] = spoiled.requires_grad_()
    same(results(objective, FactoredLogits(*parts), broken, parts, form, weights), expected, rtol=0, atol=0)


def test_only_gradients_that_are_wanted_are_computed():
    for wanted in range(3):
        parts = [part.detach().requires_grad_(n == wanted) for n, part in enumerate(student()[1])]
        other, plain = target("logits", None)
        expected = results(JSD(), F.linear(*parts), plain, [parts[wanted]], "logits")
        same(results(JSD(), FactoredLogits(*parts), other, [parts[wanted]], "logits"), expected)
    own, _ = student()
    other, plain = target("logits", None)
    with torch.no_grad():
        loss = JSD().forward(own, other)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, JSD()(own.dense(), plain).detach())
    mixed = MixedLogits([own.detach(), own.detach()], lambda chunks, where: chunks[0] + chunks[1])
    torch.testing.assert_close(JSD().forward(mixed, other), JSD()(mixed.dense(), plain))


def test_the_gradient_is_that_of_what_the_loss_is_used_in():
    own, parts = student()
    other, plain = target("logits", None)
    for scale in (0.25, torch.tensor(3.0, dtype=torch.float64)):
        same(
            results(JSD(), own, other, parts, "logits", scale=scale),
            results(JSD(), F.linear(*parts), plain, parts, "logits", scale=scale),
        )


def test_it_goes_backward_once():
    own, _ = student()
    loss = JSD().forward(own, target("logits", None)[0])
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="goes backward once"):
        loss.backward()


def test_the_gradient_of_a_layer_is_handed_over_and_not_copied():
    own, (_, weight, _) = student()
    passed = []
    weight.register_hook(lambda gradient: passed.append(gradient.data_ptr()))
    JSD().forward(own, target("logits", None)[0]).backward()
    assert passed == [weight.grad.data_ptr()]


def test_a_narrowed_layer():
    own, parts = student()
    wanted, plain = target("logits", None)
    narrow = own.narrow(9).take(torch.tensor([5, 1, 1]))
    logits = F.linear(parts[0][[5, 1, 1]], parts[1][:9], parts[2][:9])
    rows = wanted.take(torch.tensor([0, 1, 2])).narrow(9)
    expected = results(JSD(), logits, plain[:3, :9], parts, "logits")
    same(results(JSD(), narrow, rows, parts, "logits"), expected)


def test_gradients_through_the_target_or_the_weights_take_the_dense_way():
    own, parts = student()
    hidden, weight = normal(8, 4, seed=7).requires_grad_(), normal(WORDS, 4, seed=8)
    weights = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = results(JSD(), own, FactoredLogits(hidden, weight), [*parts, hidden, weights], "logits", weights)
    same(
        found, results(JSD(), F.linear(*parts), F.linear(hidden, weight), [*parts, hidden, weights], "logits", weights)
    )


def test_weights_of_another_precision_leave_that_of_the_loss():
    own, parts = student(dtype=torch.float32)
    wanted, plain = target("logits", None, dtype=torch.float32)
    weights = torch.arange(8, dtype=torch.float64)
    loss, gradients = results(JSD(), own, wanted, parts, "logits", weights)
    assert loss.dtype == torch.float32
    # sums of a few float32 terms in another order
    same((loss, gradients), results(JSD(), F.linear(*parts), plain, parts, "logits", weights), rtol=1e-4, atol=1e-5)


def test_facts_of_rows_are_cut_with_them():
    own, parts = student()
    wanted, plain = target("logits", None)
    labels, weights = torch.arange(8), torch.tensor([0, 1, 1, 0.5, 0, 1, 1, 2], dtype=torch.float64)
    for some in (None, weights):
        expected = results(Marked(), F.linear(*parts), plain, parts, "logits", some, labels=labels)
        same(results(Marked(), own, wanted, parts, "logits", some, labels=labels), expected)


@pytest.mark.parametrize("objective", [JSD(temperature=2), ForwardKL(), CrossEntropy(), Squares()])
def test_half_precision_is_computed_in_float32(objective):
    own, parts = student(dtype=torch.bfloat16)
    wanted, _ = target("logits", None, dtype=torch.bfloat16)
    loss, gradients = results(objective, own, wanted, parts, "logits")
    assert loss.dtype == torch.float32 and [part.dtype for part in gradients] == [torch.bfloat16] * 3
    # products in bfloat16 carry 8 bits; one dense pass in bfloat16 differs from float64 as much
    exact = [part.detach().double().requires_grad_() for part in parts]
    expected = results(objective, F.linear(*exact), wanted.to("cpu").dense().double(), exact, "logits")
    torch.testing.assert_close(loss.double(), expected[0], rtol=2e-2, atol=0)
    for mine, other in zip(gradients, expected[1], strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=5e-2, atol=2e-2 * other.abs().max().item())


@pytest.mark.parametrize("objective", DIVERGENCES, ids=lambda objective: type(objective).__name__)
@pytest.mark.parametrize("form", ["logits", "probs"])
def test_extreme_logits_stay_finite(objective, form):
    logits = torch.tensor([[300.0, 0.0, -300.0], [-300.0, 300.0, 0.0]], requires_grad=True)
    layer = FactoredLogits(logits, torch.eye(3).requires_grad_())
    wanted = torch.tensor([[-300.0, 300.0, 0.0], [-300.0, 300.0, 0.0]])
    wanted = wanted if form == "logits" else wanted.softmax(-1)
    expected = results(objective, logits, wanted, [logits], form)
    loss, (hidden, weight) = results(objective, layer, wanted, [logits, layer.weight], form)
    assert loss.isfinite() and weight.isfinite().all()
    same((loss, [hidden]), expected)


@pytest.mark.parametrize("objective", [ForwardKL(2), CrossEntropy(), JSD(), SkewedKL(), TotalVariation()])
def test_words_that_a_target_rules_out(objective):
    """Logits of -inf, where the loss is finite: the same as a probability of 0."""
    own, parts = student()
    plain = normal(8, WORDS, seed=4)
    plain[:, 3:7] = float("-inf")
    p = (plain / objective.temperature).softmax(-1)
    expected = results(objective, F.linear(*parts), p, parts, "probs")
    same(results(objective, own, plain, parts, "logits"), expected)


def test_small_signals_are_made_and_compared_as_ever(monkeypatch):
    monkeypatch.setattr(_chunked, "LARGE", 8 * WORDS)
    own, parts = student(dtype=torch.float32)
    wanted, plain = target("logits", None, dtype=torch.float32)
    for objective in (JSD(), MSE(), CrossEntropy(temperature=2)):
        found = results(objective, own, wanted, [*parts], "logits")
        same(found, results(objective, F.linear(*parts), plain, parts, "logits"), rtol=0, atol=0)
        own = FactoredLogits(*parts)


def test_refusals_are_those_of_the_dense_way():
    own, _ = student()
    with pytest.raises(ValueError, match=r"student \[8, 13\] and target \[8, 12\] differ in shape"):
        JSD().forward(own, target("logits", None)[0].narrow(12))
    with pytest.raises(ValueError, match="reads logits or probs, not labels"):
        JSD().forward(own, torch.zeros(8, dtype=torch.int64), form="labels")
    with pytest.raises(ValueError, match=r"student \[8, 13\] and target \[7\] differ in shape"):
        CrossEntropy().forward(own, torch.zeros(7, dtype=torch.int64), form="labels")
    labels = torch.full((8,), WORDS)
    with pytest.raises(IndexError, match=r"out of bounds: they must be in \[0, 13\)"):
        CrossEntropy().forward(own, labels)


class Relating(Objective):
    """Samples that depend on each other: nothing to cut."""

    def forward(self, student, target, *, form="logits", weights=None):
        from kdmesh.objectives import comparable

        student, target = comparable(student, target, weights)
        return ((student @ student.T - target @ target.T) ** 2).mean()


def test_an_objective_that_knows_nothing_of_lazy_signals_is_given_tensors():
    own, parts = student()
    wanted, plain = target("logits", None)
    expected = results(Relating(), F.linear(*parts), plain, parts, "logits")
    same(results(Relating(), own, wanted, parts, "logits"), expected, rtol=0, atol=0)


class Doubled:
    """Other elements, from beside the objectives."""

    def elements(self, log_q, target, form):
        return 2 * super().elements(log_q, target, form)


def test_a_closed_form_holds_for_the_elements_that_it_was_written_for():
    renamed = type("Renamed", (ForwardKL,), {})
    mixed = type("Mixed", (Doubled, ForwardKL), {})
    faster = type("Faster", (ForwardKL,), {"gradient": lambda self, rows: super(ForwardKL, self).gradient(rows)})
    assert [kind.closed_form for kind in (Squares, ForwardKL, Bent, renamed, mixed, faster)] == [
        False, True, False, True, False, True,
    ]  # fmt: skip


def test_a_gradient_with_elements_of_its_own_says_whether_it_is_used():
    own = {"elements": Squares.elements, "gradient": ForwardKL.gradient}
    with pytest.raises(TypeError, match="write `closed_form = True`"):
        type("Unsaid", (Tempered,), own)
    assert type("Said", (Tempered,), {**own, "closed_form": True}).closed_form
    assert not type("Left", (Tempered,), {**own, "closed_form": False}).closed_form
