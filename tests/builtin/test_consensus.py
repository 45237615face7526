"""Consensus rules: what holds for all of them, and the formulas of those that weigh their sources."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kdmesh.builtin.consensus.offers import CONSENSUS
from kdmesh.consensus import (
    Confidence,
    DropWorst,
    Entropy,
    InverseVariance,
    LowestCE,
    Mean,
    Rule,
    Staleness,
    Weighted,
    weighted_sum,
)
from kdmesh.errors import MeshError

# rules that read a column: test_consensus_partial.py; that abstain: test_consensus_robust.py; that combine nothing but
# weights, over time: tests/engine/test_weights_that_flow.py
OFFERS = {
    offer.name: offer
    for offer in CONSENSUS
    if not (offer.needs_column or offer.abstains or offer.spaces == ("weights",))
}
SEEDS = st.integers(0, 2**31 - 1)
few = settings(max_examples=25, deadline=None, derandomize=True)
each_rule = pytest.mark.parametrize("name", OFFERS)
WEIGHING = [name for name, offer in OFFERS.items() if "loss" in offer.spaces]


def made(name, sources, space="probs"):
    """A rule for so many sources, or for these of them, as it begins: one with a memory is another after a call."""
    numbers = range(sources) if isinstance(sources, int) else sources
    asked = {"weighted": {"weights": [1.0 + m for m in numbers]}, "staleness": {"exponent": 0.5}}
    rule = OFFERS[name].make(asked.get(name, {}))
    rule.space = space
    rule.setup(tuple(f"source {number}" for number in numbers), 5, ())
    return rule


def signals(seed, sources=4, batch=3, classes=5):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(sources, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (batch,), generator=generator)


def answered(seed, sources):
    return torch.rand(sources, 3, generator=torch.Generator().manual_seed(seed + 1)) < 0.7


def combine(rule, logits, labels, present=None):
    values = logits.softmax(-1) if rule.space == "probs" else logits
    return rule(values, logits=logits, labels=labels, present=present)


@each_rule
@few
@given(seed=SEEDS, sources=st.integers(1, 6))
def test_probs_give_a_distribution_and_inputs_stay_as_they_were(name, seed, sources):
    logits, labels = signals(seed, sources)
    values, present = logits.softmax(-1), answered(seed, sources)
    before = values.clone(), logits.clone(), present.clone()
    result = made(name, sources)(values, logits=logits, labels=labels, present=present)
    assert all(torch.equal(a, b) for a, b in zip(before, (values, logits, present), strict=True))
    assert result.isfinite().all()
    assert (result >= 0).all()
    mass = result.sum(-1)[present.any(0)]
    torch.testing.assert_close(mass, torch.ones_like(mass))


@pytest.mark.parametrize("name", [name for name in OFFERS if name != "weighted"])
@few
@given(seed=SEEDS, order=st.permutations(range(5)))
def test_invariant_to_the_order_of_sources(name, seed, order):
    logits, labels = signals(seed, sources=5)
    torch.testing.assert_close(combine(made(name, 5), logits[order], labels), combine(made(name, 5), logits, labels))


@pytest.mark.parametrize(("name", "space"), [(name, space) for name in OFFERS for space in OFFERS[name].spaces[:2]])
@few
@given(seed=SEEDS, kept=st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True).map(sorted))
def test_an_absent_source_is_a_removed_source(name, space, seed, kept):
    logits, labels = signals(seed, sources=5)
    expected = combine(made(name, kept, space), logits[kept], labels)
    present = torch.zeros(5, 3, dtype=torch.bool)
    present[kept] = True
    logits[~present] = float("nan")
    torch.testing.assert_close(combine(made(name, 5, space), logits, labels, present), expected)


@each_rule
@few
@given(seed=SEEDS)
def test_a_single_source_is_the_consensus(name, seed):
    logits, labels = signals(seed, sources=1)
    values = logits.softmax(-1)
    expected = torch.nn.functional.one_hot(values[0].argmax(-1), 5).double() if name == "vote" else values[0]
    expected = (values[0] / 0.1).softmax(-1) if name == "era" else expected  # it sharpens
    torch.testing.assert_close(combine(made(name, 1), logits, labels), expected)


@each_rule
@few
@given(seed=SEEDS)
def test_samples_do_not_influence_each_other(name, seed):
    logits, labels = signals(seed)
    alone = [combine(made(name, 4), logits[:, [i]], labels[[i]]) for i in range(3)]
    assert torch.equal(combine(made(name, 4), logits, labels), torch.cat(alone))


@each_rule
def test_a_sample_that_nobody_answered_is_finite(name):
    logits, labels = signals(0)
    present = torch.ones(4, 3, dtype=torch.bool)
    present[:, 1] = False
    logits[:, 1] = float("nan")
    result = combine(made(name, 4), logits, labels, present)
    assert result.isfinite().all()


@pytest.mark.parametrize(
    ("name", "space"), [(name, space) for name in OFFERS if name != "vote" for space in OFFERS[name].spaces[:2]]
)
def test_gradients_reach_the_sources_and_no_absent_one(name, space):
    logits, labels = signals(4)
    rule, present = made(name, 4, space), torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 0, 1]]).bool()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: combine(made(name, 4, space), z, labels, present), logits)
    spoiled = torch.where(present[..., None], logits.detach(), float("nan"))
    values = spoiled.softmax(-1) if space == "probs" else spoiled.clone()
    spoiled.requires_grad_(), values.requires_grad_()
    rule(values, logits=spoiled, labels=labels, present=present)[:, 0].sum().backward()
    gradients = [side.grad for side in (values, spoiled) if side.grad is not None]
    assert gradients
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert not gradient[~present].any()


@pytest.mark.parametrize("name", WEIGHING)
@few
@given(seed=SEEDS, sources=st.integers(1, 6))
def test_weights_are_shares_of_the_present(name, seed, sources):
    logits, labels = signals(seed, sources)
    present = answered(seed, sources)
    weights = made(name, sources).weights(logits, labels=labels, present=present)
    assert weights.shape == (sources, 3)
    assert (weights >= 0).all()
    assert not weights[~present].any()
    torch.testing.assert_close(weights.sum(0), present.any(0).double())


@pytest.mark.parametrize("name", [name for name in OFFERS if name not in (*WEIGHING, "expguard")])
def test_rules_that_are_no_weighted_sum_say_so(name):
    with pytest.raises(NotImplementedError, match="no weighted sum"):
        made(name, 4).weights(signals(0)[0])


def entropies(logits):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -(p * np.log(p)).sum(-1)


def test_entropy_formula():
    logits, _ = signals(1)
    h = entropies(logits.numpy())
    expected = (1 - h / h.sum(0)) / 3
    torch.testing.assert_close(Entropy().weights(logits), torch.from_numpy(expected))


def test_entropy_of_certain_sources_and_excluded_classes():
    certain = torch.tensor([[[200.0, 0.0]], [[0.0, 900.0]]])
    assert Entropy().weights(certain).tolist() == [[0.5], [0.5]]
    excluding = torch.tensor([[[float("-inf"), 0.0, 0.0]], [[0.0, 0.0, 0.0]]])
    shares = np.log([2, 3])
    expected = 1 - shares / shares.sum()
    torch.testing.assert_close(Entropy().weights(excluding)[:, 0], torch.tensor(expected, dtype=torch.float32))


def test_confidence_formula():
    logits, labels = signals(2)
    p = torch.softmax(logits, -1).numpy()
    ce = -np.log(p[:, np.arange(3), labels.numpy()])
    expected = (1 - np.exp(ce) / np.exp(ce).sum(0)) / 3
    torch.testing.assert_close(Confidence().weights(logits, labels=labels), torch.from_numpy(expected))


def test_confidence_ignores_a_source_that_excludes_the_right_class():
    logits = torch.tensor([[[float("-inf"), 0.0]], [[3.0, 0.0]], [[3.0, 0.0]]])
    weights = Confidence().weights(logits, labels=torch.tensor([0]))
    torch.testing.assert_close(weights, torch.tensor([[0.0], [0.5], [0.5]]))


def test_inverse_variance_formula():
    """``sum_m v_m / e_m / sum_k 1 / e_k`` over who is present, for each value."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    errors = torch.rand(3, 2, generator=generator, dtype=torch.float64) * 100
    present = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]], dtype=torch.bool)
    precision = present[:, :, None] / errors[:, None]
    expected = (values * precision).sum(0) / precision.sum(0).clamp(min=1e-300)
    found = InverseVariance()(values, logits=values, present=present, errors=errors)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_inverse_variance_where_errors_are_none_infinite_or_not_known():
    values = torch.tensor([[[1.0, 1.0, 1.0, 1.0]], [[3.0, 3.0, 3.0, 3.0]]])
    errors = torch.tensor([[0.0, torch.inf, torch.nan, 0.0], [1.0, 1.0, torch.inf, 0.0]], dtype=torch.float64)
    found = InverseVariance()(values, logits=values, errors=errors)
    assert found.tolist() == [[1.0, 3.0, 2.0, 2.0]]
    assert InverseVariance()(values, logits=values).tolist() == [[2.0] * 4]  # in a loop that measures none
    broken = torch.tensor([[[torch.nan]], [[3.0]]])
    assert InverseVariance()(broken, logits=broken, errors=errors[:, 1:2]).item() == 3.0


def test_lowest_ce_takes_the_best_and_the_first_of_equals():
    logits = torch.tensor([[[0.0, 1.0], [0.0, 2.0]], [[1.0, 0.0], [5.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]])
    weights = LowestCE().weights(logits, labels=torch.tensor([0, 1]))
    assert weights.T.tolist() == [[0, 1, 0], [1, 0, 0]]
    present = torch.tensor([[True, False], [False, True], [True, False]])
    assert LowestCE().weights(logits, labels=torch.tensor([0, 1]), present=present).T.tolist() == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("rule", [Confidence(), LowestCE()])
def test_rules_that_need_labels_ask_for_them(rule):
    logits, _ = signals(0)
    with pytest.raises(MeshError, match="compares its sources on labels"):
        combine(rule, logits, None)


def test_mean_and_weighted_against_numpy():
    logits, _ = signals(3)
    values = logits.softmax(-1)
    torch.testing.assert_close(Mean()(values, logits=logits), torch.from_numpy(values.numpy().mean(0)))
    result = Weighted([4.0, 3.0, 2.0, 1.0])(values, logits=logits)
    torch.testing.assert_close(result, torch.from_numpy(np.average(values.numpy(), axis=0, weights=[4, 3, 2, 1])))


@pytest.mark.parametrize("space", ["probs", "logits"])
def test_means_of_probs_and_of_logits_are_different_consensus(space):
    logits = torch.tensor([[[6.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    rule = Mean()
    rule.space = space
    expected = {"probs": logits.softmax(-1).mean(0), "logits": torch.tensor([[3.0, 0.5]], dtype=torch.float64)}
    torch.testing.assert_close(combine(rule, logits, None), expected[space])


def test_weighted_names_both_numbers_when_they_differ():
    with pytest.raises(MeshError, match=r"2 weights for 4 sources\n  instead: one weight per source"):
        combine(Weighted([1.0, 2.0]), signals(0)[0], None)


def test_sources_are_summed_in_declared_order():
    values = torch.tensor([1e8, 1.0, -1e8]).view(3, 1, 1)
    for order in itertools.permutations(range(3)):
        ordered = values[list(order)]
        expected = (ordered[0] + ordered[1]) + ordered[2]
        assert torch.equal(weighted_sum(ordered, torch.ones(3, 1)), expected)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("weighted", {}),
        ("weighted", {"weights": []}),
        ("weighted", {"weights": [1, 0]}),
        ("trimmed_mean", {"trim": 0.5}),
        ("geometric_median", {"iterations": 0}),
        ("mean", {"trim": 0.1}),
    ],
)
def test_offers_refuse_settings_out_of_bounds(name, config):
    with pytest.raises(ValidationError):
        OFFERS[name].make(config)


@each_rule
def test_offers_are_described(name):
    offer = OFFERS[name]
    assert offer.summary
    assert issubclass(offer.load(), Rule)
    assert all(field.description for field in offer.config.model_fields.values())
    assert offer.needs_labels == (name in ("confidence", "lowest_ce"))
    assert bool(made(name, 3).state_dict()) is offer.stateful


def test_drop_worst_leaves_out_those_with_the_largest_errors():
    """Of who is present; one is always left, and of equal errors the first stays."""
    values = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(4, 1, 1).expand(4, 3, 2)
    errors = torch.tensor([[0.1, 0.2], [0.5, 0.0], [0.0, 0.5], [torch.inf, torch.inf]], dtype=torch.float64)
    present = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.bool)

    def mean(rule, **more):
        return rule(values, logits=values, **more)[:, 0].tolist()

    assert mean(DropWorst(1), errors=errors) == pytest.approx([7 / 3] * 3)
    assert mean(DropWorst(2), errors=errors) == [1.5] * 3  # of two alike the first
    assert mean(DropWorst(9), errors=errors) == [1.0] * 3
    assert mean(DropWorst(1), errors=errors, present=present) == pytest.approx([7 / 3, 1.5, 2.0])
    assert mean(DropWorst(1)) == mean(DropWorst(1), errors=torch.full_like(errors, torch.inf)) == [3.75] * 3


def test_staleness_weighs_by_how_long_a_party_has_been_away():
    """``(1 + age)^-a`` over who is present; where nobody is away it is the mean."""
    values = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).view(3, 1, 1).expand(3, 2, 2)
    present = torch.tensor([[1, 0], [1, 1], [1, 1]], dtype=torch.bool)
    rule = Staleness(0.5)
    found = rule(values, logits=values, age=(0, 3, 8), present=present)[:, 0].tolist()
    assert found == pytest.approx([(1 + 2 / 2 + 4 / 3) / (1 + 1 / 2 + 1 / 3), (2 / 2 + 4 / 3) / (1 / 2 + 1 / 3)])
    assert rule(values, logits=values, age=(5, 5, 5))[0].tolist() == pytest.approx([7 / 3] * 2)
    assert rule(values, logits=values)[0].tolist() == pytest.approx([7 / 3] * 2)
    assert Staleness(1)(values, logits=values, age=(0, 1, 3))[0, 0].item() == pytest.approx(3 / 1.75)
