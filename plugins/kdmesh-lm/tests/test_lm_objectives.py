"""The objectives against the papers' formulas, written anew in numpy, in double precision; gradients too."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kdmesh.signals.lazy import faced
from kdmesh.signals.sparse import TopKLogits

from kdmesh_lm.adaptive_kl import AdaptiveKL
from kdmesh_lm.entropy_aware_kl import EntropyAwareKL
from kdmesh_lm.mass_weighted_kl import MassWeightedKL

OBJECTIVES = {
    "adaptive": AdaptiveKL(mu=0.4, temperature=2.0),
    "entropy-aware": EntropyAwareKL(threshold=1.2, forward=0.5),
    "mass-weighted": MassWeightedKL(k=2, temperature=3.0),
}


def logits(seed, batch=6, classes=7):
    return 2 * torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


S, T = logits(0), logits(1)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def adaptive(s, t, mu, temperature=1.0):
    """Row by row, by loops."""
    found = []
    for q, p in zip(softmax(s / temperature), softmax(t / temperature), strict=True):
        mass, head = 0.0, []
        for number in sorted(range(len(p)), key=lambda at: -p[at]):
            if mass >= mu:
                break
            mass += p[number]
            head.append(number)
        g_h = sum(abs(p[at] - q[at]) for at in head)
        g_t = sum(abs(p[at] - q[at]) for at in range(len(p)) if at not in head)
        found.append((g_h * kl(p, q) + g_t * kl(q, p)) / (g_h + g_t))
    return np.array(found)


def entropy_aware(s, t, threshold, forward):
    q, p = softmax(s), softmax(t)
    entropy = -(p * np.log(p)).sum(-1)
    assert 0 < (entropy > threshold).sum() < len(p)  # both happen
    return kl(q, p) + forward * np.where(entropy > threshold, kl(p, q), 0)


def mass_weighted(s, t, k, temperature):
    q, p = softmax(s / temperature), softmax(t / temperature)
    return np.array([p[row][np.argsort(-q[row])[:k]].sum() for row in range(len(p))]) * kl(q, p)


ROWS = {
    "adaptive": lambda: 4 * adaptive(S.numpy(), T.numpy(), 0.4, 2.0),
    "entropy-aware": lambda: entropy_aware(S.numpy(), T.numpy(), 1.2, 0.5),
    "mass-weighted": lambda: 9 * mass_weighted(S.numpy(), T.numpy(), 2, 3.0),
}
WEIGHTS = torch.tensor([0.5, 0.0, 1.0, 2.0, 1.0, 0.25], dtype=torch.float64)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_is_its_formula(name):
    objective, rows = OBJECTIVES[name], ROWS[name]()
    assert objective(S, T).item() == pytest.approx(rows.mean(), rel=1e-12)
    assert objective(S, T, weights=WEIGHTS).item() == pytest.approx((WEIGHTS.numpy() * rows).mean(), rel=1e-12)
    probs = (T / objective.temperature).softmax(-1)
    assert objective(S, probs, form="probs").item() == pytest.approx(rows.mean(), rel=1e-12)


def test_adaptive_kl_is_the_published_figure():
    """KDFlow's inputs, for which its table has 1.83894 and, at T = 2 without T², 0.65024."""
    i = torch.arange(110, dtype=torch.float64)
    labels = torch.tensor([[-100, -100, 3, 7, 1], [-100, 2, 5, -100, -100]])
    s, t = ((torch.sin(0.7 * i) * 2).float().view(2, 5, 11), (torch.cos(1.3 * i) * 3).float().view(2, 5, 11))
    s, t = s[labels != -100], t[labels != -100]
    assert AdaptiveKL()(s, t).item() == pytest.approx(1.83894, abs=5e-6)
    assert AdaptiveKL(temperature=2.0, t2_scale=False)(s, t).item() == pytest.approx(0.65024, abs=5e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_those_of_what_is_not_weighed(name):
    """By differences of the divergences alone: what weighs a row is held as it is."""
    objective = OBJECTIVES[name]
    leaf = S.clone().requires_grad_()
    objective(leaf, T).backward()
    assert leaf.grad is not None
    temperature = objective.temperature
    q, p = ((side / temperature).softmax(-1) for side in (S, T))
    if name == "adaptive":
        forward = objective.head_share(p, q)[:, 0]
        reverse = 1 - forward
    elif name == "entropy-aware":
        forward = 0.5 * (-(p * p.log()).sum(-1) > 1.2).double()
        reverse = torch.ones(len(p), dtype=torch.float64)
    else:
        forward = torch.zeros(len(p), dtype=torch.float64)
        reverse = p.gather(-1, q.topk(2, -1).indices).sum(-1)
    of_forward = q - p
    log_ratio = q.log() - p.log()
    of_reverse = q * (log_ratio - (q * log_ratio).sum(-1, keepdim=True))
    wanted = (forward[:, None] * of_forward + reverse[:, None] * of_reverse) * temperature / len(p)
    torch.testing.assert_close(leaf.grad, wanted, rtol=1e-10, atol=1e-13)


def outcomes(s, t, k, tail):
    """What is compared of both sides where a target has its likeliest k columns alone, as logits of doubles."""
    at = t.topk(k, -1).indices
    found = []
    for side in (s, t):
        p = side.softmax(-1)
        named = p.gather(-1, at)
        found.append(named if tail == "renormalise" else torch.cat([named, 1 - named.sum(-1, keepdim=True)], -1))
    return [one.log() for one in found]


@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_of_the_likeliest_alone_each_is_its_formula(name, tail):
    """As the engine compares a signal `top_k` with such a tail; the gradient is that of what is compared."""
    hand = {
        "adaptive": lambda s, t: 4 * adaptive(s, t, 0.4, 2.0),
        "entropy-aware": lambda s, t: entropy_aware(s, t, 1.0, 0.5),
        "mass-weighted": lambda s, t: 9 * mass_weighted(s, t, 2, 3.0),
    }[name]
    objective = EntropyAwareKL(threshold=1.0, forward=0.5) if name == "entropy-aware" else OBJECTIVES[name]
    expected = outcomes(S, T, 4, tail)
    wanted, found = S.clone().requires_grad_(), S.clone().requires_grad_()
    loss = objective(*faced(found, TopKLogits.top(T, 4, tail)))
    assert loss.item() == pytest.approx(hand(*(side.numpy() for side in expected)).mean(), rel=1e-9)
    loss.backward()
    objective(*outcomes(wanted, T, 4, tail)).backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_single_precision_is_that_of_doubles(name):
    objective = OBJECTIVES[name]
    pairs = []
    for dtype in (torch.float32, torch.float64):
        leaf = S.to(dtype, copy=True).requires_grad_()
        objective(leaf, T.to(dtype)).backward()
        pairs.append(leaf.grad)
    torch.testing.assert_close(pairs[0].double(), pairs[1], rtol=2e-4, atol=1e-6)


def test_the_ends_are_plain_divergences():
    one, other = softmax(S.numpy()), softmax(T.numpy())
    assert EntropyAwareKL(threshold=100.0)(S, T).item() == pytest.approx(kl(one, other).mean(), rel=1e-12)
    assert MassWeightedKL(k=50)(S, T).item() == pytest.approx(kl(one, other).mean(), rel=1e-12)
    assert AdaptiveKL()(S, S).item() == pytest.approx(0, abs=1e-12)
    assert math.isfinite(AdaptiveKL()(torch.tensor([[0.0, -math.inf]]), torch.tensor([[0.0, 0.0]])).item())
