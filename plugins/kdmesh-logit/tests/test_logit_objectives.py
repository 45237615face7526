"""The objectives against the papers' formulas, written anew in numpy, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kdmesh.objectives import ForwardKL
from kdmesh.signals.sparse import TopKLogits

from kdmesh_logit.dist import DIST
from kdmesh_logit.dkd import DKD
from kdmesh_logit.standardised_kl import StandardisedKL

LABELS = torch.tensor([2, 0, 4, 4])
OBJECTIVES = {
    "dist": (DIST(temperature=3.0), {}),
    "standardised": (StandardisedKL(), {}),
    "standardised as code": (StandardisedKL(faithful="code"), {}),
    "dkd": (DKD(), {"labels": LABELS}),
}
each = pytest.mark.parametrize(("objective", "more"), OBJECTIVES.values(), ids=OBJECTIVES)


def logits(seed, batch=4, classes=5):
    return 2 * torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


S, T = logits(0), logits(1)
SN, TN = S.numpy(), T.numpy()


@pytest.mark.parametrize(("temperature", "t2_scale"), [(1.0, True), (4.0, True), (4.0, False)])
def test_dist_is_one_minus_pearson_of_rows_and_of_columns(temperature, t2_scale):
    q, p = softmax(SN / temperature), softmax(TN / temperature)
    inter = np.mean([1 - np.corrcoef(q[i], p[i])[0, 1] for i in range(4)])
    intra = np.mean([1 - np.corrcoef(q[:, c], p[:, c])[0, 1] for c in range(5)])
    wanted = (1.5 * inter + 0.5 * intra) * (temperature**2 if t2_scale else 1.0)
    objective = DIST(inter=1.5, intra=0.5, temperature=temperature, t2_scale=t2_scale)
    assert objective(S, T).item() == pytest.approx(wanted, rel=1e-5)
    probs = torch.from_numpy(p)
    assert objective(S, probs, form="probs").item() == pytest.approx(wanted, rel=1e-5)


def test_dist_weighs_columns_by_the_weighted_correlation():
    w = np.array([0.5, 2.0, 1.0, 0.0])
    q, p = softmax(SN), softmax(TN)
    rows = sum(w[i] * (1 - np.corrcoef(q[i], p[i])[0, 1]) for i in range(4)) / 4
    columns = []
    for c in range(5):
        (qq, qp), (_, pp) = np.cov(q[:, c], p[:, c], aweights=w)
        columns.append(1 - qp / np.sqrt(qq * pp))
    wanted = 2 * rows + 2 * w.mean() * np.mean(columns)
    assert DIST()(S, T, weights=torch.from_numpy(w)).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("faithful", "ddof"), [("paper", 0), ("code", 1)])
def test_standardised_kl_is_kd_on_z_scores(faithful, ddof):
    def z(x):
        return (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=ddof, keepdims=True) + 1e-7)

    wanted = 4.0 * kl(softmax(z(TN) / 2), softmax(z(SN) / 2)).mean()
    objective = StandardisedKL(faithful=faithful)
    assert objective(S, T).item() == pytest.approx(wanted, rel=1e-12)
    assert objective(7 * S + 3, T).item() == pytest.approx(wanted, rel=1e-6)  # size and offset are free
    with pytest.raises(ValueError, match="reads logits, not probs"):
        objective(S, T.softmax(-1), form="probs")


def test_standardised_kl_of_equal_logits_has_a_finite_gradient():
    flat = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    StandardisedKL()(flat, T).backward()
    assert flat.grad.isfinite().all()


def decoupled(temperature):
    """The two parts of DKD, by the paper's definitions."""
    q, p, y = softmax(SN / temperature), softmax(TN / temperature), LABELS.numpy()
    target, others = [], []
    for i in range(4):
        rest = np.arange(5) != y[i]
        b_t, b_s = (np.array([x[i, y[i]], x[i, rest].sum()]) for x in (p, q))
        target.append(kl(b_t, b_s))
        others.append(kl(p[i, rest] / p[i, rest].sum(), q[i, rest] / q[i, rest].sum()))
    return np.array(target), np.array(others), 1 - p[np.arange(4), y]


@pytest.mark.parametrize("form", ["logits", "probs"])
def test_dkd_weighs_the_true_class_and_the_others_apart(form):
    target, others, _ = decoupled(4.0)
    wanted = 16 * (1.5 * target + 8 * others).mean()
    given = T if form == "logits" else (T / 4).softmax(-1)
    objective = DKD(alpha=1.5, beta=8.0, temperature=4.0)
    assert objective(S, given, form=form, labels=LABELS).item() == pytest.approx(wanted, rel=1e-12)


def test_dkd_parts_make_up_the_classic_kl():
    target, others, rest = decoupled(4.0)
    assert 16 * (target + rest * others).mean() == pytest.approx(ForwardKL(4.0)(S, T).item(), rel=1e-12)


def test_dkd_holds_where_the_true_class_is_certain():
    sure = torch.tensor([[200.0, 1.0, 2.0]], requires_grad=True)
    loss = DKD(temperature=1.0)(sure, torch.tensor([[200.0, 2.0, 1.0]]), labels=torch.tensor([0]))
    loss.backward()
    p = softmax(np.array([2.0, 1.0]))
    assert loss.item() == pytest.approx(8 * kl(p, p[::-1]), rel=1e-5)
    assert sure.grad.isfinite().all()


def test_dkd_without_labels_says_so():
    with pytest.raises(ValueError, match="DKD needs the true classes"):
        DKD()(S, T)


def test_dist_of_equals_is_zero_but_for_its_eps():
    assert DIST(temperature=3.0)(S, S.clone()).item() == pytest.approx(0.0, abs=1e-4)


@each
def test_weights_scale(objective, more):
    torch.testing.assert_close(objective(S, T, weights=torch.full((4,), 0.5), **more), 0.5 * objective(S, T, **more))


@each
def test_the_others_fare_as_if_silent_samples_were_not_there(objective, more):
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0])
    heard = weights != 0
    fewer = {"labels": LABELS[heard]} if more else {}
    loss = objective(S, T, weights=weights, **more)
    torch.testing.assert_close(loss, objective(S[heard], T[heard], **fewer) * 3 / 4, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("masked", [(True, True), (True, False), (False, True)], ids=["both", "student", "target"])
@pytest.mark.parametrize(
    "objective", [DKD(temperature=2.0), DIST(), StandardisedKL()], ids=lambda one: type(one).__name__
)
def test_logits_of_minus_infinity_break_no_gradient(objective, masked):
    sides = [torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1)]
    labels = {"labels": torch.tensor([0, 1, 3, 4])} if isinstance(objective, DKD) else {}
    for side, out in zip(sides, masked, strict=True):
        side[:, 2] = -float("inf") if out else 0.5
    leaf = sides[0].clone().requires_grad_()
    loss = objective(leaf, sides[1], **labels)
    (gradient,) = torch.autograd.grad(loss, leaf)
    infinite = masked == (True, False) and not isinstance(objective, DIST)  # mass where only the student says never
    assert (loss == float("inf") if infinite else loss.isfinite()) and gradient.isfinite().all()
    if all(masked) and isinstance(objective, StandardisedKL):
        kept = [side[:, [0, 1, 3, 4]] for side in sides]
        torch.testing.assert_close(loss.detach(), objective(*kept), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["logits", "probs"])
@pytest.mark.parametrize("column", [1, 4], ids=["of no label", "of labels"])
@pytest.mark.parametrize(("masked", "infinite"), [("student", True), ("target", False), ("both", False)])
def test_classes_that_are_ruled_out_by_dkd(form, column, masked, infinite):
    """A target's mass where the student says -inf is infinite; else such a class is as if it were not there."""
    student, target = S.clone(), T.clone()
    if masked != "target":
        student[:, column] = -torch.inf
    if masked != "student":
        target[:, column] = -torch.inf
    objective, leaf = DKD(temperature=2.0), student.requires_grad_()
    given = (target / 2).softmax(-1) if form == "probs" else target
    loss = objective(leaf, given, form=form, labels=LABELS)
    loss.backward()
    assert loss.isinf() == infinite and not loss.isnan() and leaf.grad.isfinite().all()
    if (masked, column) == ("both", 1):
        known = torch.tensor([0, 2, 3, 4])
        rest = leaf.detach()[:, known].requires_grad_()
        expected = objective(rest, given[:, known], form=form, labels=torch.tensor([1, 0, 3, 3]))
        expected.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(leaf.grad[:, known], rest.grad)


@pytest.mark.parametrize("faithful", ["paper", "code"])
def test_standardised_rows_with_classes_ruled_out_stand_beside_whole_ones(faithful):
    """Of any row as if it stood alone, and as if the ruled out classes were not there; a GPU is not waited for."""
    objective, masked = StandardisedKL(faithful=faithful), logits(7)
    masked[1, 2] = masked[3, :2] = -torch.inf
    leaf = masked.clone().requires_grad_()
    found = objective._standard(leaf)
    assert torch.equal(found[[0, 2]], objective._standard(masked[[0, 2]]))
    for row, said in zip(found, masked, strict=True):
        left = said > -torch.inf
        torch.testing.assert_close(row[left], objective._standard(said[left][None])[0])
        assert row[~left].isneginf().all()
    assert torch.autograd.grad(found[masked > -torch.inf].square().sum(), leaf)[0].isfinite().all()
    assert objective._standard(torch.zeros(4, 5, device="meta")).shape == (4, 5)  # whose numbers cannot be read


def pearson_loss(q, p):
    """One minus the correlations along the last axis, 1 where a side does not vary."""
    q, p = (x - x.mean(-1, keepdim=True) for x in (q, p))
    return 1 - (q * p).sum(-1) / (q.norm(dim=-1) * p.norm(dim=-1) + 1e-8)


@pytest.mark.parametrize("top", [False, True], ids=["dense", "top_k"])
@pytest.mark.parametrize("masked", ["student", "target", "both the same", "both different", "a column", "a row"])
def test_dist_of_every_mask_is_its_definition(masked, top):
    """Values and gradients: such a class has probability 0; a row of nothing else is no distribution, so NaN."""
    student, target = logits(3), logits(4)
    if masked not in ("target", "a row"):
        student[1, 2] = -torch.inf
    if masked in ("target", "both the same", "a column"):
        target[1, 2] = -torch.inf
    if masked == "both different":
        target[1, 3] = -torch.inf
    if masked == "a column":
        student[:, 2] = target[:, 2] = -torch.inf
    if masked == "a row":
        target[0] = -torch.inf
    target = TopKLogits.top(target, 2).dense() if top else target
    leaf = student.clone().requires_grad_()
    q, p = (leaf / 2).softmax(-1), (target / 2).softmax(-1)
    wanted = 4 * (2 * pearson_loss(q, p).mean() + 2 * pearson_loss(q.T, p.T).mean())
    found = DIST(temperature=2.0)(leaf, target)
    if masked == "a row":
        assert found.isnan() and wanted.isnan()
        return
    torch.testing.assert_close(found, wanted)
    one, other = (torch.autograd.grad(loss, leaf)[0] for loss in (found, wanted))
    assert one.isfinite()[student > -torch.inf].all()
    torch.testing.assert_close(one, other.nan_to_num())
