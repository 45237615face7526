"""Rules for sources that know different classes, and the rule that routes by a column."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.builtin.consensus.offers import CONSENSUS, RouteConfig
from kdmesh.consensus import UHC, Concat, Confidence, Entropy, Route
from kdmesh.errors import MeshError

OFFERS = {offer.name: offer for offer in CONSENSUS}
INF = float("inf")
few = settings(max_examples=25, deadline=None, derandomize=True)


def logits_of(shown, scale=3.0, batch=4, seed=0):
    """Logits ``[M, B, C]``, of the classes that each source knows ``[M, C]``."""
    known = torch.as_tensor(shown, dtype=torch.bool)[:, None].expand(-1, batch, -1)
    drawn = torch.randn(known.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(known, scale * drawn, -INF)


def criterion(log_q, p, shown):
    """The rule's own: ``-sum_m sum_l p_m(l) log(q_l / sum_k q_k)``, for each sample."""
    total = torch.where(shown, log_q, -INF).logsumexp(-1, keepdim=True)
    return -torch.where(shown, p * (log_q - total), 0.0).sum((0, 2))


def merged(logits, temperature=1.0, **more):
    rule = UHC()
    rule.temperature = temperature
    return rule((logits / temperature).softmax(-1), logits=logits, **more)


@st.composite
def label_sets(draw):
    """Two to five sources, each with some of two to eight classes, every class known to some source."""
    classes = draw(st.integers(2, 8))
    sets = draw(st.lists(st.sets(st.integers(0, classes - 1), min_size=1), min_size=2, max_size=5))
    rows = [[number in one for number in range(classes)] for one in sets]
    rows[0] = [known or not any(row[number] for row in rows) for number, known in enumerate(rows[0])]
    return rows


@few
@given(rows=label_sets(), seed=st.integers(0, 999), scale=st.sampled_from([0.5, 3.0, 10.0]))
def test_uhc_is_where_its_criterion_is_flat(rows, seed, scale):
    logits = logits_of(rows, scale, seed=seed)
    log_q = merged(logits).log().requires_grad_()
    (gradient,) = torch.autograd.grad(criterion(log_q, logits.softmax(-1), ~logits.isinf()).sum(), log_q)
    # the criterion is convex in log q, so that a flat place is its minimum
    assert gradient.abs().max() < 1e-7


def test_uhc_is_what_a_general_optimiser_finds():
    rows = [[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]]
    logits = logits_of(rows, seed=5)
    p, shown = logits.softmax(-1), ~logits.isinf()
    log_q = torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([log_q], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss():
        search.zero_grad()
        value = criterion(log_q, p, shown).sum()
        value.backward()
        return value

    search.step(loss)
    torch.testing.assert_close(merged(logits), log_q.detach().softmax(-1), atol=1e-6, rtol=1e-5)


def test_uhc_of_one_shared_class_is_by_hand():
    p = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.6, 0.4]], dtype=torch.float64)
    # q_0 : q_1 as the first says, q_1 : q_2 as the second
    by_hand = torch.tensor([0.7 / 0.3, 1.0, 0.4 / 0.6], dtype=torch.float64)
    torch.testing.assert_close(merged(p.log()[:, None])[0], by_hand / by_hand.sum())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_disjoint_label_sets_are_the_softmax_of_all_logits(temperature):
    logits = logits_of([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
    expected = (torch.where(logits.isinf(), 0.0, logits).sum(0) / temperature).softmax(-1)
    concat = Concat()
    concat.temperature = temperature
    torch.testing.assert_close(concat(logits, logits=logits), expected)
    torch.testing.assert_close(merged(logits, temperature), expected)


def test_groups_without_a_class_in_common_share_mass_as_concat_does():
    logits = logits_of([[1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]])
    q, side_by_side = merged(logits), Concat()(logits, logits=logits)
    torch.testing.assert_close(q[:, :3].sum(-1), side_by_side[:, :3].sum(-1))
    alone = merged(logits[:2, :, :3])
    torch.testing.assert_close(q[:, :3] / q[:, :3].sum(-1, keepdim=True), alone)


def test_equal_label_sets_are_the_mean():
    logits = logits_of(torch.ones(3, 5))
    torch.testing.assert_close(merged(logits), logits.softmax(-1).mean(0))


def test_concat_is_the_mean_of_those_who_know():
    logits = torch.tensor([[[1.0, 2.0, -INF, -INF]], [[-INF, 4.0, 0.5, -INF]]])
    rule = Concat()
    rule.space = "logits"
    assert rule(logits, logits=logits).tolist() == [[1.0, 3.0, 0.5, 0.5]]  # nobody knows the last: the lowest


def test_gradients_of_uhc_are_those_of_the_optimum():
    shown = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 1]], dtype=torch.bool)
    free = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: merged(torch.where(shown[:, None], z, -INF)), free)


def test_absent_sources_take_their_classes_with_them():
    logits = logits_of([[1, 1, 0], [0, 1, 1]]).float()
    present = torch.tensor([[True, True, False, False], [True, False, True, False]])
    spoiled = torch.where(present[..., None], logits, torch.nan)
    q = UHC()(spoiled.softmax(-1), logits=spoiled, present=present)
    torch.testing.assert_close(q[1], logits[0, 1].softmax(-1))
    torch.testing.assert_close(q[2], logits[1, 2].softmax(-1))
    assert q.isfinite().all() and q.dtype == torch.float32


def test_nearly_certain_sources_are_merged_too():
    p = torch.tensor([[1 - 1e-12, 1e-12, 0.0], [0.0, 1 - 1e-9, 1e-9]], dtype=torch.float64)
    q = merged(p.log()[:, None])[0]
    assert (q[0] / q[1]).item() == pytest.approx(1e12, rel=1e-3)
    assert (q[2] / q[1]).item() == pytest.approx(1e-9, rel=1e-3)


def test_weights_of_units_are_their_own():
    """Per token `[M, N, C]`: what a rule gives for a row does not depend on the rows beside it."""
    logits = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(7)
    for rule in (Entropy(), Confidence()):
        weights = rule.weights(logits, labels=labels)
        rows = [rule.weights(logits[:, [n]], labels=labels[[n]]) for n in range(7)]
        assert torch.equal(weights, torch.cat(rows, 1))
        assert len(weights.unique(dim=1)[0]) == 7


# -- route ---------------------------------------------------------------------------------------------------------

COLUMNS = ("law", "medicine", "sports")
COLUMN = torch.tensor([1, 0, 2, -1])


def route(to, other=None, space="probs"):
    config = {"column": "domain", "to": to, **({} if other is None else {"else": other})}
    rule = OFFERS["route"].make(config)
    rule.space = space
    rule.setup(("a", "b", "c"), 5, (), columns=COLUMNS)
    return rule


@pytest.mark.parametrize("space", OFFERS["route"].spaces)
def test_a_sample_is_its_specialist_s(space):
    logits = logits_of(torch.ones(3, 5))
    rule = route({"law": "c", "medicine": "a"}, "b", space)
    expected = torch.tensor([0, 2, 1, 1])
    assert rule.weights(logits, column=COLUMN).argmax(0).equal(expected)
    if space != "loss":
        values = logits.softmax(-1) if space == "probs" else logits
        said = rule(values, logits=logits, column=COLUMN)
        assert said.equal(values[expected, torch.arange(4)])


def test_everyone_speaks_where_no_route_leads():
    weights = route({"law": "c"}, "mean").weights(torch.zeros(3, 4, 5), column=COLUMN)
    torch.testing.assert_close(weights.T, torch.tensor([[1, 1, 1], [0, 0, 3], [1, 1, 1], [1, 1, 1]]) / 3)


def test_an_absent_specialist_is_stood_in_for():
    rule = route({"law": "c", "medicine": "a", "sports": "a"}, "b")
    present = torch.tensor([[False, True, False, True], [True, True, False, False], [True, False, True, True]])
    weights = rule.weights(torch.zeros(3, 4, 5), present=present, column=torch.tensor([1, 0, 1, -1]))
    assert weights.T.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1], [0.5, 0, 0.5]]


def test_a_value_without_a_route_is_refused():
    with pytest.raises(MeshError, match="no source for domain 'medicine', 'sports'") as error:
        route({"law": "a"})
    assert "else: mean" in error.value.instead


def test_a_route_from_no_value_is_refused():
    with pytest.raises(MeshError, match="column 'domain' holds no 'lwa'") as error:
        route({"lwa": "a"}, "mean")
    assert "'law'" in error.value.instead


def test_routes_name_their_sources_and_numbers_are_values():
    config = RouteConfig.model_validate({"column": "domain", "to": {3: "a"}, "else": "b"})
    assert config.named_sources() == {"to.3": "a", "else": "b"}
    assert isinstance(Route(**config.model_dump()), Route)
    assert not RouteConfig(column="domain", to={"3": "a"}, else_="mean").named_sources().get("else")
