"""Consensus rules that hold against wrong sources: vote, median, trimmed mean, geometric median."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.consensus import GeometricMedian, Mean, Median, ThresholdVote, TrimmedMean, Vote, normalised
from kdmesh.errors import MeshError

SEEDS = st.integers(0, 2**31 - 1)
few = settings(max_examples=25, deadline=None, derandomize=True)


def random_logits(seed, sources, batch=3, classes=4):
    return torch.randn(sources, batch, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_space(rule, space):
    rule.space = space
    return rule


def renormalised(values):
    return torch.from_numpy(values / values.sum(-1, keepdims=True))


@few
@given(seed=SEEDS, sources=st.integers(1, 7), votes=st.integers(1, 7))
def test_threshold_vote_answers_as_vote_does_where_enough_agree(seed, sources, votes):
    logits = random_logits(seed, sources)
    present = torch.rand(sources, 3, generator=torch.Generator().manual_seed(seed)) < 0.8
    probs = torch.where(present[..., None], logits.softmax(-1), float("nan"))
    values, answered = ThresholdVote(votes)(probs, logits=logits, present=present)
    assert torch.equal(values, Vote()(probs, logits=logits, present=present))
    for row in range(3):
        ballots = [int(logits[m, row].argmax()) for m in range(sources) if present[m, row]]
        assert bool(answered[row]) == (max(map(ballots.count, ballots), default=0) >= votes)


def test_threshold_vote_refuses_more_votes_than_there_are_sources():
    with pytest.raises(MeshError, match="4 votes are asked for, and there are 3 sources"):
        ThresholdVote(4).setup(("a", "b", "c"), 4, ())


@few
@given(seed=SEEDS, sources=st.integers(1, 7))
def test_median_is_that_of_numpy_for_odd_and_even_numbers(seed, sources):
    logits = random_logits(seed, sources)
    expected = np.median(logits.numpy(), axis=0)
    torch.testing.assert_close(in_space(Median(), "logits")(logits, logits=logits), torch.from_numpy(expected))
    probs = logits.softmax(-1)
    torch.testing.assert_close(Median()(probs, logits=logits), renormalised(np.median(probs.numpy(), axis=0)))


@few
@given(seed=SEEDS, sources=st.integers(1, 12), trim=st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.49]))
def test_trimmed_mean_sorts_cuts_and_averages(seed, sources, trim):
    logits = random_logits(seed, sources)
    cut = int(np.floor(round(trim * sources, 6)))
    kept = np.sort(logits.numpy(), axis=0)[cut : sources - cut]
    rule = in_space(TrimmedMean(trim), "logits")
    torch.testing.assert_close(rule(logits, logits=logits), torch.from_numpy(kept.mean(0)))


def test_trimmed_mean_cuts_by_the_number_of_present_sources():
    values = torch.tensor([0.0, 1.0, 2.0, 9.0, 50.0]).view(5, 1, 1).expand(5, 2, 1)
    present = torch.tensor([[1, 1], [1, 1], [1, 1], [1, 1], [1, 0]]).bool()
    rule = in_space(TrimmedMean(0.25), "logits")  # floor(0.25 * 5) = floor(0.25 * 4) = 1
    assert rule(values, logits=values, present=present).flatten().tolist() == [4.0, 1.5]


def test_trimmed_mean_is_not_misled_by_rounding():
    values = torch.arange(100.0).view(100, 1, 1) ** 2
    rule = in_space(TrimmedMean(0.29), "logits")  # 0.29 * 100 is 28.999999999999996
    torch.testing.assert_close(rule(values, logits=values), values[29:71].mean(0))


@few
@given(seed=SEEDS, sources=st.integers(3, 7))
def test_geometric_median_minimises_the_sum_of_distances(seed, sources):
    points = random_logits(seed, sources, batch=1)
    centre = in_space(GeometricMedian(iterations=200), "logits")(points, logits=points)

    def cost(at):
        return (points - at).norm(dim=-1).sum().item()

    # the sum is convex: a point that no step in any direction betters, up to a tolerance, is its minimum
    steps = torch.cat([torch.eye(4), -torch.eye(4)]).double() * 0.05
    rivals = [*(centre + step for step in steps), *points, points.mean(0), points.median(0).values]
    assert cost(centre) <= min(map(cost, rivals)) + 1e-4


def test_geometric_median_leaves_a_source_that_is_not_the_median():
    points = torch.tensor([-1.0, -1.0, -1.0, 0.0, 3.0]).view(5, 1, 1)  # their mean is the fourth of them
    centre = in_space(GeometricMedian(iterations=64), "logits")(points, logits=points)
    assert centre.item() == pytest.approx(-1.0, abs=1e-5)


@pytest.mark.parametrize(
    "rule", [Median(), GeometricMedian(), TrimmedMean(0.4), Vote()], ids=lambda r: type(r).__name__
)
def test_two_of_five_attackers_move_the_mean_and_not_the_robust(rule):
    honest = torch.tensor([[0.80, 0.15, 0.05], [0.75, 0.15, 0.10], [0.70, 0.20, 0.10]], dtype=torch.float64)
    attack = torch.tensor([[0.0, 0.0, 1.0]] * 2, dtype=torch.float64)  # one-hot on the least likely class
    values = torch.cat([honest, attack])[:, None]
    assert Mean()(values, logits=values.log())[0].tolist() == pytest.approx([0.45, 0.10, 0.45])
    robust = rule(values, logits=values.log())[0]
    assert robust.argmax() == 0
    assert robust[0] > 0.6


def test_half_of_the_sources_far_away_do_not_break_the_median_of_the_rest():
    honest = random_logits(5, 3)
    values = torch.cat([honest, torch.full((2, 3, 4), 1e6, dtype=torch.float64)])
    for rule in (in_space(Median(), "logits"), in_space(TrimmedMean(0.4), "logits")):
        result = rule(values, logits=values)
        assert (result <= honest.amax(0)).all()
        assert (result >= honest.amin(0)).all()


def test_vote_takes_the_plurality_and_shares_ties():
    values = torch.tensor(
        [
            [[0.6, 0.4, 0.0], [0.9, 0.1, 0.0]],
            [[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]],
            [[0.0, 0.1, 0.9], [0.0, 0.1, 0.9]],
        ]
    )
    assert Vote()(values, logits=values.log())[0].tolist() == [1.0, 0.0, 0.0]
    torch.testing.assert_close(Vote()(values, logits=values.log())[1], torch.full((3,), 1 / 3))
    present = torch.tensor([[True, True], [False, True], [False, False]])
    assert Vote()(values, logits=values.log(), present=present).tolist() == [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.4), Vote()], ids=lambda r: type(r).__name__)
def test_sorting_rules_are_exactly_invariant_to_order(rule):
    values = random_logits(7, 6).float().softmax(-1)
    assert torch.equal(rule(values.flip(0), logits=values), rule(values, logits=values))


def test_medians_without_any_mass_become_uniform():
    values = torch.eye(3)[:, None]  # three sources, each sure of a class of its own: every median is 0
    torch.testing.assert_close(Median()(values, logits=values), torch.full((1, 3), 1 / 3))
    torch.testing.assert_close(normalised(torch.tensor([-1.0, 1.0, 3.0])), torch.tensor([0.0, 0.25, 0.75]))
