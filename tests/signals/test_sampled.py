"""Sampled targets: right on average, in loss and gradient; the same draw for the same answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.builtin.objectives.cross_entropy import CrossEntropy
from kdmesh.builtin.objectives.forward_kl import ForwardKL
from kdmesh.hosts.packing import pack, unpack
from kdmesh.signals import sampled
from kdmesh.signals.lazy import FactoredLogits, joined
from kdmesh.signals.sampled import SampledProbs


def logits(rows, columns, seed=0, scale=3.0):
    return scale * torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(columns=st.integers(1, 12), k=st.integers(0, 12), draws=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_row_has_mass_one_and_shares_that_are_next_to_their_mean(columns, k, draws, seed):
    k, whole = min(k, columns), logits(4, columns, seed)
    whole[0, 0] = -torch.inf if columns > 1 else 0.0
    value = SampledProbs.draw(whole, k, draws, seed=seed)
    made, p = value.dense(), whole.softmax(1)
    torch.testing.assert_close(made.sum(1), torch.ones(4, dtype=torch.float64))
    assert not made[p == 0].any()
    best = p.topk(k).indices
    torch.testing.assert_close(made.gather(1, best), p.gather(1, best))
    rest = p.scatter(1, best, 0.0)
    share = rest.sum(1, keepdim=True) / draws
    assert bool(((made - p).abs() <= share + 1e-12).all())  # drawn floor or ceil of its mean number of times


@pytest.mark.parametrize(("k", "draws"), [(0, 1), (0, 6), (3, 4), (8, 2)])
def test_the_mean_over_all_draws_is_the_dense_loss_and_its_gradient(monkeypatch, k, draws):
    """Over a row's number u, which is all that is random, on a grid so fine that it stands for the integral."""
    grid = 20_000
    monkeypatch.setattr(sampled, "_uniform", lambda *given: (torch.arange(grid, dtype=torch.float64) + 0.5) / grid)
    whole, student = logits(1, 40, 1), logits(1, 40, 2, 1.0).requires_grad_()
    for objective, temperature in ((CrossEntropy(), 1.0), (ForwardKL(2.0), 2.0)):
        dense = (whole / temperature).softmax(1)
        loss = objective(student, dense, form="probs")
        (gradient,) = torch.autograd.grad(loss, student)
        drawn = SampledProbs.draw(whole.expand(grid, -1), k, draws, temperature=temperature).dense()
        assert float((drawn.mean(0) - dense[0]).abs().max()) < 2 / grid
        assert int((drawn != drawn[0]).any(1).sum()) > grid / 20  # they do differ
        mean = objective(student.expand(grid, -1), drawn, form="probs")
        (found,) = torch.autograd.grad(mean, student)
        torch.testing.assert_close(found, gradient, atol=2e-4, rtol=0)
        if isinstance(objective, ForwardKL):  # what was drawn has another entropy, which no student changes
            entropies = [torch.xlogy(p, p).sum() / len(p) for p in (dense, drawn)]
            mean = mean + (entropies[0] - entropies[1]) * objective.scale
            assert entropies[1] > entropies[0]
        torch.testing.assert_close(mean, loss, atol=2e-3, rtol=0)


def test_the_mean_over_seeds_is_the_distribution():
    whole, count, draws = logits(2, 30, 5), 3000, 4
    p = whole.softmax(1)
    best = p.topk(2).indices
    rest = p.scatter(1, best, 0.0)
    mass = rest.sum(1, keepdim=True)
    mean = sum(SampledProbs.draw(whole, 2, draws, seed=seed).dense() for seed in range(count)) / count
    part = (rest / mass * draws) % 1  # how often it is drawn once more
    error = mass / draws * ((part * (1 - part) / count).sqrt() + 2 / count)
    assert bool(((mean - p).abs() <= 5 * error).all()) and float((mean - p).abs().max()) > 0


def test_the_likeliest_alone_are_biased_where_draws_are_not():
    whole, student = logits(1, 60, 3, 1.0), logits(1, 60, 4, 1.5)
    dense, log_q = whole.softmax(1), student.log_softmax(1)
    exact = -(dense * log_q).sum()
    top = dense.topk(8)
    renormalised = -(top.values / top.values.sum() * log_q.gather(1, top.indices)).sum()
    drawn = torch.stack([-(SampledProbs.draw(whole, 4, 4, seed=s).dense() * log_q).sum() for s in range(2000)])
    assert abs(renormalised - exact) > 0.1 > 8 * abs(drawn.mean() - exact)


def test_a_draw_belongs_to_the_answer_and_to_the_seed():
    whole = logits(6, 50)
    one = SampledProbs.draw(whole, 2, 5, seed=3)
    shuffled = torch.tensor([4, 0, 5, 2])
    again = SampledProbs.draw(whole[shuffled], 2, 5, seed=3)
    for part, other in zip(again.leaves(), one.leaves(), strict=True):
        assert torch.equal(part, other[shuffled])
    assert not torch.equal(SampledProbs.draw(whole, 2, 5, seed=4).index, one.index)
    near = whole.clone()
    near[:, 7] += 1e-9  # another answer
    moved = SampledProbs.draw(near, 0, 5, seed=3).index != SampledProbs.draw(whole, 0, 5, seed=3).index
    assert int(moved.any(1).sum()) >= 5
    alike = torch.zeros(1, 9).expand(400, 9) + torch.arange(400)[:, None] * 0.01  # of one distribution
    assert len({tuple(row) for row in SampledProbs.draw(alike.contiguous(), 0, 2, seed=0).index.tolist()}) < 400


def test_numbers_of_rows_are_spread_evenly():
    values = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    u = sampled._uniform(values, torch.zeros(4000, 0, dtype=torch.int64), 5)
    assert float(u.min()) >= 0 and float(u.max()) < 1
    counts = torch.histc(u.double(), 20, 0, 1)
    assert float(((counts - 200) ** 2 / 200).sum()) < 45  # chi square of 19 degrees: 43.8 has a share of 0.001


def test_large_logits_are_drawn_some_rows_at_a_time(monkeypatch):
    hidden, weight = logits(7, 4, 1), logits(30, 4, 2)
    whole = SampledProbs.draw(hidden @ weight.T, 3, 4, seed=1)
    monkeypatch.setattr(sampled, "LARGE", 60)
    parts = SampledProbs.draw(FactoredLogits(hidden, weight), 3, 4, seed=1)
    assert torch.allclose(parts.dense().sum(1), torch.ones(7, dtype=torch.float64))
    assert torch.equal(parts.index[:, :3], whole.index[:, :3])


def test_it_crosses_narrows_and_joins():
    value = SampledProbs.draw(logits(5, 30), 3, 4)
    back, _ = unpack({0: pack((value, {}))}, torch.device("cpu"))[0]
    assert isinstance(back, SampledProbs) and torch.equal(back.dense(), value.dense())
    assert torch.equal(value.narrow(20).dense(), value.dense()[:, :20])
    assert torch.equal(joined([value, back]).dense(), torch.cat([value.dense()] * 2))
    assert torch.equal(value.take(torch.tensor([4, 1])).dense(), value.dense()[[4, 1]])


def test_nothing_is_left_to_draw_from():
    value = SampledProbs.draw(logits(3, 5), 5, 2)
    torch.testing.assert_close(value.dense(), logits(3, 5).softmax(1))
