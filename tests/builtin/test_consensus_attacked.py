"""Rules against sources that lie on purpose: what each withstands, and what none does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from kdmesh.consensus import (
    EigenFilter,
    EntropyReduction,
    ExpGuard,
    GeometricMedian,
    Mean,
    Median,
    TrimmedMean,
    normalised,
)
from kdmesh.errors import MeshError
from kdmesh.testing import attackers

CLASSES, ROWS, HONEST, LIARS, ROUNDS = 10, 300, 6, 4, 5
SEEDS = st.integers(0, 2**31 - 1)
FLOAT32 = {"atol": 1e-5, "rtol": 1e-5}  # ExpGuard's state, whose exponents are up to 60 here
few = settings(max_examples=20, deadline=None, derandomize=True)
RULES = {
    "mean": Mean,
    "median": Median,
    "trimmed_mean": lambda: TrimmedMean(0.4),
    "geometric_median": GeometricMedian,
    "eigen_filter": EigenFilter,
    "expguard": ExpGuard,
}


def honest(sources=HONEST, rows=ROWS, seed=0):
    """Probabilities of sources that are each right of about 86% of the rows, and what is right."""
    drawn = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (rows,), generator=drawn)
    shared = torch.randn(rows, CLASSES, generator=drawn, dtype=torch.float64) + 3 * F.one_hot(labels, CLASSES)
    own = torch.randn(sources, rows, CLASSES, generator=drawn, dtype=torch.float64) / 2
    return (shared + own).softmax(-1), labels


def made(rule, sources):
    rule = RULES[rule]() if isinstance(rule, str) else rule
    rule.setup(tuple(f"p{number}" for number in range(sources)), CLASSES, ())
    return rule


def right(rule, values, labels, rounds=1):
    """Percent right in each round that a rule is asked."""
    rule = made(rule, len(values))
    asked = [rule(values, logits=values.log()) for _ in range(rounds)]
    return [100 * (value.argmax(-1) == labels).double().mean().item() for value in asked]


def attacked(lie, liars=LIARS):
    values, labels = honest()
    lies = lie(values, liars) if lie is attackers.hidden_least_likely else lie(values)
    return torch.cat([values, lies.expand(liars, -1, -1)]), labels


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "geometric_median", "eigen_filter"])
@pytest.mark.parametrize("lie", [attackers.least_likely, attackers.least_similar], ids=["lma", "cpa"])
def test_four_liars_of_ten_ruin_the_mean_and_not_the_robust(rule, lie):
    clean = right("mean", *honest())[0]
    assert clean > 85
    assert right("mean", *attacked(lie))[0] < clean - 40
    assert right(rule, *attacked(lie))[0] > clean - 5


@pytest.mark.parametrize(
    "lie", [attackers.least_likely, attackers.least_similar, attackers.second_class], ids=["lma", "cpa", "second"]
)
def test_expguard_learns_over_rounds_who_lies(lie):
    values, labels = attacked(lie)
    clean, rule = right("mean", *honest())[0], made("expguard", len(values))
    rounds = []
    for _ in range(ROUNDS):
        value = rule(values, logits=values.log())
        rounds.append(100 * (value.argmax(-1) == labels).double().mean().item())
    assert right("mean", values, labels)[0] + 25 < rounds[0] < rounds[-1]
    assert rounds[-1] > clean - 3
    said = rule.report()
    assert max(said[f"weight of p{number}"] for number in range(HONEST, HONEST + LIARS)) < 0.03
    assert min(said[f"outlier of p{number}"] for number in range(HONEST, HONEST + LIARS)) > 2 * max(
        said[f"outlier of p{number}"] for number in range(HONEST)
    )


def test_the_second_class_is_a_lie_that_medians_follow_further_than_the_filter():
    values, labels = attacked(attackers.second_class)
    found = {rule: right(rule, values, labels)[0] for rule in RULES}
    assert found["mean"] < 40
    assert found["eigen_filter"] > max(found["median"], found["geometric_median"]) + 2
    assert min(found["median"], found["geometric_median"]) > 75


@pytest.mark.parametrize("lie", [attackers.hidden_least_likely, attackers.hidden_least_similar], ids=["lma", "cpa"])
def test_liars_within_the_honest_hull_are_told_by_no_rule(lie):
    """They say together what one honest source says, so that they stand in the middle: who looks there trusts them."""
    values, labels = attacked(lie)
    found = {rule: right(rule, values, labels, ROUNDS)[-1] for rule in RULES}
    assert found["mean"] == max(found.values())
    rule = made("expguard", len(values))
    rule(values, logits=values.log())
    said = rule.report()
    assert min(said[f"weight of p{n}"] for n in range(HONEST, HONEST + LIARS)) > max(
        said[f"weight of p{n}"] for n in range(HONEST)
    )


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_withstands_a_majority(rule):
    assert right(rule, *attacked(attackers.least_likely, liars=HONEST + 3), ROUNDS)[-1] < 15


@pytest.mark.parametrize("rule", [name for name in RULES if name != "mean"])
def test_without_liars_a_robust_rule_is_near_the_mean(rule):
    values, labels = honest()
    mean, found = values.mean(0), made(rule, HONEST)(values, logits=values.log())
    assert (found - mean).abs().sum(-1).mean() < (values - mean).abs().sum(-1).mean() / 2  # than one source is
    assert abs(right(rule, values, labels)[0] - right("mean", values, labels)[0]) < 3


def test_attackers_say_what_they_are_called():
    first, second = [[0.9, 0.06, 0.04], [0.8, 0.12, 0.08], [0.2, 0.42, 0.38]], [[0.1, 0.8, 0.1], [0.5, 0.3, 0.2]]
    values = torch.tensor([first, [*second, [0.1, 0.7, 0.2]]]).transpose(0, 1)
    assert attackers.least_likely(values).argmax(-1).tolist() == [2, 2]
    assert attackers.second_class(values).argmax(-1).tolist() == [1, 0]
    alike = torch.tensor([[1.0, 0.5, 0.2], [0.5, 1.0, 0.6], [0.2, 0.6, 1.0]])
    assert attackers.least_similar(values, alike).argmax(-1).tolist() == [2, 0]
    for lie in (attackers.least_likely, attackers.second_class, attackers.least_similar):
        assert lie(values).amax(-1).tolist() == [1.0, 1.0] and lie(values).sum(-1).tolist() == [1.0, 1.0]
    said = torch.stack([values[2, 0], values[1, 1]])  # by those that are furthest from the mean's likeliest class
    assert torch.equal(attackers.hidden_least_likely(values, 1), said)
    assert torch.equal(attackers.hidden_least_similar(values, alike), said)
    torch.testing.assert_close(attackers.correlated(values), values.mean(0).T.cov())


def test_who_hides_says_what_makes_the_mean_of_all_worst():
    values, _ = honest()
    mean, said = values.mean(0), attackers.hidden_least_likely(values, LIARS)
    for row in range(ROWS):
        means = [(values[:, row].sum(0) + LIARS * one) / (HONEST + LIARS) for one in values[:, row]]
        harm = [-(mean[row] * one.log()).sum().item() for one in means]
        assert torch.equal(said[row], values[harm.index(max(harm)), row])


@few
@given(seed=SEEDS, sources=st.integers(2, 7))
def test_order_changes_nothing_and_equal_sources_are_themselves(seed, sources):
    values, _ = honest(sources, rows=4, seed=seed)
    order = torch.randperm(sources, generator=torch.Generator().manual_seed(seed))
    for rule in (EntropyReduction, EigenFilter, ExpGuard):
        here, there = made(rule(), sources), made(rule(), sources)
        for _ in range(2):
            first = here(values, logits=values.log())
            torch.testing.assert_close(there(values[order], logits=values[order].log()), first)
            torch.testing.assert_close(first.sum(-1), torch.ones(4, dtype=torch.float64))
        if rule is not EntropyReduction:
            same = values[:1].expand(sources, -1, -1)
            torch.testing.assert_close(made(rule(), sources)(same, logits=same.log()), values[0])


@few
@given(seed=SEEDS, sources=st.integers(1, 6))
def test_era_is_the_softmax_of_the_mean(seed, sources):
    values, _ = honest(sources, rows=3, seed=seed)
    found = EntropyReduction(0.1)(values, logits=values.log())
    torch.testing.assert_close(found, (10 * values.mean(0)).softmax(-1))

    def entropy(rows):
        return -(rows * rows.log()).sum(-1)

    sharp = values.mean(0).amax(-1) > 0.7
    assert (entropy(found) < entropy(values.mean(0)))[sharp].all()


def test_era_rules_out_what_all_rule_out():
    logits = torch.tensor([[[1.0, 0.0, -torch.inf]], [[0.0, -torch.inf, -torch.inf]]])
    found = EntropyReduction()(logits.softmax(-1), logits=logits)[0]
    assert found[2] == 0 < found[1]
    absent = torch.tensor([[True], [False]])
    other = EntropyReduction()(logits.softmax(-1), logits=logits, present=~absent)[0]
    assert other.tolist() == [1.0, 0.0, 0.0]  # what an absent source knows is nothing here
    nobody = EntropyReduction()(logits.softmax(-1), logits=logits, present=absent & False)
    assert nobody.isfinite().all() and EntropyReduction()(logits.softmax(-1), logits=logits, present=absent)[0, 2] == 0


def test_the_filter_drops_along_the_first_eigenvector_twice():
    """As by numpy, sample by sample, on sources that are not all present."""
    values, _ = honest(sources=9, rows=12, seed=3)
    present = torch.rand(9, 12, generator=torch.Generator().manual_seed(4)) < 0.8
    found = EigenFilter(0.4)(torch.where(present[..., None], values, torch.nan), logits=values.log(), present=present)
    for row in range(12):
        points = values[:, row][present[:, row]].numpy()
        cut = int(0.4 * len(points) / 2 + 1e-9)
        for _ in range(2):
            centred = points - points.mean(0)
            _, vectors = torch.linalg.eigh(torch.from_numpy(centred.T @ centred))
            out = abs(centred @ vectors[:, -1].numpy())
            points = points[out.argsort()[: len(points) - cut]]
        torch.testing.assert_close(found[row], torch.from_numpy(points.mean(0)))


def test_a_share_that_leaves_nobody_out_is_told_and_half_is_refused():
    rule = EigenFilter(0.4)
    assert rule._settings.unused(4) == {"share": "rule: mean, or median"}
    assert EigenFilter(0.2)._settings.unused(5)["share"].startswith("share: 0.4, which leaves out one in a pass")
    assert EigenFilter(0.4)._settings.unused(5) == {}
    with pytest.raises(MeshError, match="share"):
        EigenFilter(0.5)
    with pytest.raises(MeshError, match="sharpening"):
        EntropyReduction(0)
    with pytest.raises(MeshError, match="centre"):
        ExpGuard(centre="middle")


def by_hand(values, step, rounds):
    """ExpGuard around the median in plain steps: weights of the next round, and what each round says."""
    weights, said = torch.ones(len(values), dtype=torch.float64), []
    for _ in range(rounds):
        far = (values - normalised(values.median(0).values)).norm(dim=-1)
        shares = weights[:, None] * (-step * far).exp()
        shares = shares / shares.sum(0)
        said.append((values * shares[..., None]).sum(0))
        weights = weights * (-step * far.mean(1)).exp()
    return weights / weights.sum(), said


@few
@given(seed=SEEDS, step=st.sampled_from([0.1, 1.0, 20.0]))
def test_expguard_multiplies_weights_round_by_round(seed, step):
    values, _ = honest(sources=5, rows=6, seed=seed)
    rule = made(ExpGuard(step=step, centre="median"), 5)
    weights, said = by_hand(values, step, 3)
    for value in said:
        shares = rule.weights(values.log())
        torch.testing.assert_close(shares.sum(0), torch.ones(6, dtype=torch.float64))
        torch.testing.assert_close(rule(values, logits=values.log()), value, **FLOAT32)
    torch.testing.assert_close(rule.log_weights.softmax(0).double(), weights, **FLOAT32)


def test_who_is_absent_keeps_its_share_of_the_say():
    values, _ = honest(sources=4, rows=5, seed=2)
    rule = made(ExpGuard(), 4)
    rule(values, logits=values.log())
    before = rule.log_weights.softmax(0)
    present = torch.ones(4, 5, dtype=torch.bool)
    present[3] = False
    rule(torch.where(present[..., None], values, torch.nan), logits=values.log(), present=present)
    after = rule.log_weights.softmax(0)
    assert after[3].item() == pytest.approx(before[3].item()) and not torch.allclose(after[:3], before[:3])
    assert rule.rows.tolist() == [10, 10, 10, 5]
    rule(values, logits=values.log(), present=present & False)  # nobody: nothing moves
    torch.testing.assert_close(rule.log_weights.softmax(0), after)
    assert rule.rows.tolist() == [10, 10, 10, 5]


def test_who_is_absent_from_a_row_has_no_say_and_no_score_in_it():
    values, _ = honest(sources=4, rows=5, seed=2)
    present = torch.ones(4, 5, dtype=torch.bool)
    present[3] = False
    found, rest = made(ExpGuard(), 4), made(ExpGuard(), 3)
    torch.testing.assert_close(
        found(values, logits=values.log(), present=present), rest(values[:3], logits=values[:3].log())
    )
    present[3, :2] = True
    rule = made(ExpGuard(centre="median"), 4)
    expected = torch.zeros(4, dtype=torch.float64)
    for _ in range(2):
        rule(values, logits=values.log(), present=present)
    for row in range(5):
        here = present[:, row]
        middle = Median()(values[here, row][:, None], logits=values[here, row][:, None].log())[0]
        expected[here] += (values[here, row] - middle).norm(dim=-1)
    for number, (total, rows) in enumerate(zip(expected, present.sum(1), strict=True)):
        assert rule.report()[f"outlier of p{number}"] == pytest.approx((total / rows).item())  # of both calls alike


def test_a_liar_of_a_thousand_rounds_is_still_a_number():
    """Weights stand as logarithms: what is far below the smallest float has its place, and may come back."""
    values = torch.cat([honest(3, rows=2)[0], torch.eye(CLASSES, dtype=torch.float64)[[0, 1]][None]])
    rule = made(ExpGuard(step=100.0), 4)
    for _ in range(1000):
        value = rule(values, logits=values.log())
    assert value.isfinite().all() and rule.log_weights.isfinite().all()
    assert all(0 <= figure < 1.5 for figure in rule.report().values())


def test_a_state_goes_on_where_it_was_saved():
    values, _ = honest(sources=4, rows=5, seed=2)
    rule, other = made(ExpGuard(), 4), made(ExpGuard(), 4)
    rule(values, logits=values.log())
    other.load_state_dict(rule.state_dict())
    assert torch.equal(other(values, logits=values.log()), rule(values, logits=values.log()))
    assert other.report() == rule.report() and isinstance(rule, nn.Module)
