"""The objectives against their formulas, written anew in numpy, in double precision; gradients by closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kdmesh.objectives import token_log_probs
from kdmesh.signals.lazy import FactoredLogits

from kdmesh_preference.distilled import Distilled
from kdmesh_preference.dpo import DPO

SIZES = [(2, 3), (1, 1), (4, 2)]  # tokens of the two answers of each pair
V = 5


def batch():
    """What is said of every token: pair, answer, token."""
    drawn = torch.Generator().manual_seed(3)
    sides = [(pair, side) for pair, sizes in enumerate(SIZES) for side in (0, 1) for _ in range(sizes[side])]
    tokens = torch.randint(V, (len(sides), 1), generator=drawn)
    return torch.cat([torch.tensor(sides), tokens], 1)


PAIRS = batch()


def logits(seed):
    return 2 * torch.randn(len(PAIRS), V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


S, T = logits(0), logits(1)


def answers(values, per_token=False):
    """The log-probabilities of the answers, by loops, ``[P, 2]``."""
    found = np.zeros((len(SIZES), 2))
    for (pair, side, token), row in zip(PAIRS.tolist(), values.numpy(), strict=True):
        found[pair, side] += row[token] - np.log(np.exp(row).sum())
    return found / np.array(SIZES) if per_token else found


def margins(values, per_token=False):
    said = answers(values, per_token)
    return said[:, 0] - said[:, 1]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dpo(beta, smoothing, per_token):
    z = beta * (margins(S, per_token) - margins(T, per_token))
    return -(1 - smoothing) * np.log(sigmoid(z)) - smoothing * np.log(sigmoid(-z))


def divergence(beta, per_token):
    p, q = sigmoid(beta * margins(T, per_token)), sigmoid(beta * margins(S, per_token))
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def squared(beta, per_token):
    return beta**2 * (margins(S, per_token) - margins(T, per_token)) ** 2


CASES = {
    "dpo": (DPO(0.3), lambda: dpo(0.3, 0, False)),
    "smoothed": (DPO(0.3, label_smoothing=0.2), lambda: dpo(0.3, 0.2, False)),
    "per token": (DPO(2.0, per_token=True), lambda: dpo(2.0, 0, True)),
    "distilled": (Distilled(0.3), lambda: divergence(0.3, False)),
    "distilled, per token": (Distilled(2.0, per_token=True), lambda: divergence(2.0, True)),
    "squared": (Distilled(0.3, distance="squared"), lambda: squared(0.3, False)),
}


@pytest.mark.parametrize("name", CASES)
def test_each_is_its_formula(name):
    objective, rows = CASES[name][0], CASES[name][1]()
    assert objective(S, T, pairs=PAIRS).item() == pytest.approx(rows.mean(), rel=1e-12)
    assert objective(S, T.softmax(-1), form="probs", pairs=PAIRS).item() == pytest.approx(rows.mean(), rel=1e-12)
    factors = np.array([0.5, 0.0, 2.0])
    weights = torch.tensor(factors)[PAIRS[:, 0]]
    assert objective(S, T, pairs=PAIRS, weights=weights).item() == pytest.approx((factors * rows).mean(), rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_margins(name):
    """``dl/dm`` of each pair, by hand, times that of a log-probability: the one-hot token less the distribution."""
    objective = CASES[name][0]
    leaf = S.clone().requires_grad_()
    objective(leaf, T, pairs=PAIRS).backward()
    per_token, beta = objective.per_token, objective.beta
    m, t = margins(S, per_token), margins(T, per_token)
    if isinstance(objective, DPO):
        by_margin = beta * (sigmoid(beta * (m - t)) - (1 - objective.label_smoothing))
    elif objective.distance == "squared":
        by_margin = 2 * beta**2 * (m - t)
    else:
        by_margin = beta * (sigmoid(beta * m) - sigmoid(beta * t))
    wanted = torch.zeros_like(S)
    for at, (pair, side, token) in enumerate(PAIRS.tolist()):
        scale = (1 - 2 * side) * by_margin[pair] / (SIZES[pair][side] if per_token else 1) / len(SIZES)
        wanted[at] = -scale * S[at].softmax(-1)
        wanted[at, token] += scale
    torch.testing.assert_close(leaf.grad, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_single_precision_is_that_of_doubles(name):
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = S.to(dtype, copy=True).requires_grad_()
        CASES[name][0](leaf, T.to(dtype), pairs=PAIRS).backward()
        found.append(leaf.grad)
    torch.testing.assert_close(found[0].double(), found[1], rtol=2e-4, atol=1e-6)


def test_what_no_label_says_changes_nothing():
    """The distilled forms do not know which answer is chosen; the other way round DPO asks for the opposite."""
    turned = torch.stack([PAIRS[:, 0], 1 - PAIRS[:, 1], PAIRS[:, 2]], 1)
    for distance in ("kl", "squared"):
        made = Distilled(0.3, distance=distance)
        assert made(S, T, pairs=turned).item() == pytest.approx(made(S, T, pairs=PAIRS).item(), rel=1e-12)
    assert DPO(0.3)(S, T, pairs=turned).item() != pytest.approx(DPO(0.3)(S, T, pairs=PAIRS).item(), rel=1e-3)


def test_a_student_that_is_its_reference_has_log_2():
    assert DPO(0.7)(S, S, pairs=PAIRS).item() == pytest.approx(np.log(2), rel=1e-12)


def test_with_one_reference_squared_margins_are_squared_rewards():
    """Rewards ``beta (log p - log p_ref)`` of a teacher and a student differ by as much as their margins do."""
    reference = margins(logits(2))
    rewards = [0.3 * (margins(values) - reference) for values in (S, T)]
    assert Distilled(0.3, distance="squared")(S, T, pairs=PAIRS).item() == pytest.approx(
        ((rewards[0] - rewards[1]) ** 2).mean(), rel=1e-12
    )


def test_wide_outputs_are_looked_at_piece_by_piece(monkeypatch):
    """With the same gradients, whether rows are made or not."""
    from kdmesh.builtin.objectives import _spans

    drawn = torch.Generator().manual_seed(5)
    hidden, layer = (torch.randn(n, 3, generator=drawn, dtype=torch.float64) for n in (len(PAIRS), V))
    found = []
    for piece in (_spans.PIECE, 2 * V):
        monkeypatch.setattr(_spans, "PIECE", piece)
        leaves = [hidden.clone().requires_grad_(), layer.clone().requires_grad_()]
        said = token_log_probs(FactoredLogits(*leaves, None), PAIRS[:, 2])
        DPO(0.3)(FactoredLogits(*leaves, None), T, pairs=PAIRS).backward()
        found.append((said.detach(), *[leaf.grad for leaf in leaves]))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)
