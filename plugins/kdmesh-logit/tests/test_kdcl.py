"""The consensus rules of KDCL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kdmesh.errors import MeshError

from kdmesh_logit.linear_logits import LinearLogits
from kdmesh_logit.min_logit import MinLogit

Z = 3 * torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 3, 0, 1])
PRESENT = torch.tensor([[1, 1, 0, 1, 0, 0], [1, 0, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]).bool()
rules = pytest.mark.parametrize("rule", [MinLogit(), LinearLogits()], ids=["min_logit", "linear"])


def cross_entropy(z, y):
    """Of one row of logits, in numpy."""
    top = z.max()
    return top + np.log(np.exp(z - top).sum()) - z[y]


def test_min_logit_is_the_smallest_margin_over_the_true_class():
    wanted = np.empty((6, 4))
    for b in range(6):
        for c in range(4):
            wanted[b, c] = min(Z[m, b, c].item() - Z[m, b, Y[b]].item() for m in range(3))
    np.testing.assert_allclose(MinLogit()(Z, logits=Z, labels=Y).numpy(), wanted)


def test_min_logit_beats_the_best_source_on_its_label():
    best = MinLogit()(Z, logits=Z, labels=Y).numpy()
    for b in range(6):
        assert cross_entropy(best[b], Y[b]) <= min(cross_entropy(Z[m, b].numpy(), Y[b]) for m in range(3)) + 1e-12


@pytest.mark.parametrize("sources", [2, 3])
def test_linear_finds_the_lowest_cross_entropy_of_a_mixture(sources):
    z = Z[:sources].numpy()
    weights = LinearLogits()(Z[:sources], logits=Z[:sources], labels=Y)
    grid = np.linspace(0, 1, 101)
    simplex = [(a, b, 1 - a - b) for a in grid for b in grid if a + b <= 1]
    if sources == 2:
        simplex = [(a, 1 - a) for a in np.linspace(0, 1, 2001)]
    for b in range(6):
        lowest = min(cross_entropy(np.array(share) @ z[:, b], Y[b]) for share in simplex)
        assert cross_entropy(weights[b].numpy(), Y[b]) <= lowest + 1e-4


def test_linear_weights_are_shares_that_satisfy_the_optimality_conditions():
    weights = LinearLogits(iterations=200).weights(Z, labels=Y).numpy()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(0), 1.0)
    z = Z.numpy()
    for b in range(6):
        pooled = weights[:, b] @ z[:, b]
        p = np.exp(pooled - pooled.max())
        p /= p.sum()
        p[Y[b]] -= 1
        slopes = z[:, b] @ p  # equal where a weight is positive, higher where it is 0
        assert slopes[weights[:, b] > 1e-3].max() - slopes.min() < 1e-3


def test_linear_is_at_an_end_where_one_source_is_right_and_the_other_wrong():
    right = torch.tensor([[[5.0, 0.0]], [[0.0, 5.0]]])
    assert LinearLogits().weights(right, labels=torch.tensor([0])).tolist() == [[1.0], [0.0]]


@rules
def test_one_source_is_repeated(rule):
    out = rule(Z[:1], logits=Z[:1], labels=Y)
    torch.testing.assert_close(out.softmax(-1), Z[0].softmax(-1))


@rules
def test_who_is_present_may_differ_from_sample_to_sample(rule):
    broken = torch.where(PRESENT[..., None], Z, float("nan"))
    out = rule(broken, logits=broken, labels=Y, present=PRESENT)
    for b in range(5):
        heard = Z[PRESENT[:, b], b : b + 1]
        torch.testing.assert_close(out[b : b + 1], rule(heard, logits=heard, labels=Y[b : b + 1]), atol=1e-3, rtol=1e-3)


@rules
def test_a_row_does_not_depend_on_its_batch(rule):
    torch.testing.assert_close(rule(Z[:, 2:3], logits=Z[:, 2:3], labels=Y[2:3]), rule(Z, logits=Z, labels=Y)[2:3])


@rules
def test_labels_are_needed(rule):
    with pytest.raises(MeshError, match="this stream has none"):
        rule(Z, logits=Z)
