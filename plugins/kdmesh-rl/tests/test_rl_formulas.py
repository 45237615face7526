"""Loss and gradients against the papers' formulas, by plain loops in double precision."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from kdmesh_rl.offers import PolicyGradientConfig
from kdmesh_rl.policy_gradient import PolicyGradient

TOKENS = [2, 3, 1, 4, 2, 1, 3]  # of each text
PROMPTS = [8, 8, 8, 5, 5, 5, 9]  # that each answers
REWARDS = [1.0, 0.0, 0.25, 0.5, 0.5, 0.5, 1.0]  # a group, one of equal ones, and one of a single text
CLASSES = 5
TEXT = torch.arange(len(TOKENS)).repeat_interleave(torch.tensor(TOKENS))
GROUP, REWARD = torch.tensor(PROMPTS)[TEXT], torch.tensor(REWARDS)[TEXT]


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOGITS = 2 * drawn(0, len(TEXT), CLASSES)
CHOSEN = torch.randint(CLASSES, (len(TEXT),), generator=torch.Generator().manual_seed(1))
WRITTEN = LOGITS.log_softmax(-1).gather(1, CHOSEN[:, None])[:, 0] + 0.4 * drawn(2, len(TEXT))
FACTS = {"text": TEXT, "group": GROUP, "reward": REWARD}


def advantages(std, eps):
    found = []
    for prompt, reward in zip(PROMPTS, REWARDS, strict=True):
        group = [r for p, r in zip(PROMPTS, REWARDS, strict=True) if p == prompt]
        apart = reward - statistics.fmean(group)
        if len(set(group)) == 1:
            found.append(0.0)
        elif std == "none":
            found.append(apart)
        else:
            found.append(apart / ((statistics.stdev if std == "sample" else statistics.pstdev)(group) + eps))
    return found


def by_hand(logits, average="text", length=None, std="sample", eps=1e-4, clip=None, clip_high=None, temperature=1.0):
    """The loss, term by term; with a graph."""
    worth, total, at = advantages(std, eps), torch.zeros((), dtype=torch.float64), 0
    for number, tokens in enumerate(TOKENS):
        inner = torch.zeros((), dtype=torch.float64)
        for _ in range(tokens):
            scores = logits[at] / temperature
            log_q = scores[CHOSEN[at]] - scores.exp().sum().log()
            if clip is None:
                inner = inner - worth[number] * log_q
            else:
                ratio = (log_q - WRITTEN[at]).exp()
                bounded = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
                inner = inner - min(ratio * worth[number], bounded * worth[number])
            at += 1
        divided = {"text": tokens * len(TOKENS), "token": sum(TOKENS), "constant": (length or 1) * len(TOKENS)}
        total = total + inner / divided[average]
    return total


SETTINGS = [
    {},
    {"std": "population", "eps": 0.0},
    {"std": "none", "average": "token"},
    {"average": "constant", "length": 6, "temperature": 0.7},
    {"clip": 0.2},
    {"clip": 0.1, "clip_high": 0.4, "average": "token", "temperature": 1.5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_loss_and_gradient_are_those_of_the_formula(settings):
    made = PolicyGradient(**PolicyGradientConfig(**settings).model_dump())
    facts = {**FACTS, "written": WRITTEN} if "clip" in settings else FACTS
    leaves = [LOGITS.clone().requires_grad_() for _ in range(2)]
    losses = made(leaves[0], CHOSEN, **facts), by_hand(leaves[1], **settings)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12, abs=1e-14)
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-12, atol=1e-15)
    silent = (GROUP == 5) | (GROUP == 9)
    assert not leaves[0].grad[silent].any() and leaves[0].grad[~silent].any()
    assert made.report()["equal_groups"] == 0.5  # of two groups of several texts
    if "clip" in settings:
        assert 0 < made.report()["clipped"] < 1


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_single_precision_is_that_of_doubles(settings):
    grads = []
    for dtype in (torch.float32, torch.float64):
        leaf = LOGITS.to(dtype, copy=True).requires_grad_()
        facts = {**FACTS, "written": WRITTEN.to(dtype)} if "clip" in settings else FACTS
        PolicyGradient(**settings)(leaf, CHOSEN, **facts).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[0].double(), grads[1], rtol=2e-4, atol=1e-6)


def test_the_first_step_of_a_clipped_loss_is_that_of_the_plain_one():
    """The gradient of ρ A at ρ = 1 is that of A log q."""
    own = LOGITS.log_softmax(-1).gather(1, CHOSEN[:, None])[:, 0]
    grads = []
    for settings, facts in (({}, FACTS), ({"clip": 0.2}, {**FACTS, "written": own})):
        leaf = LOGITS.clone().requires_grad_()
        PolicyGradient(**settings)(leaf, CHOSEN, **facts).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-15)


def test_an_infinite_ratio_of_a_text_that_counts_nothing_adds_nothing():
    far = {**FACTS, "reward": torch.ones(len(TEXT)), "written": torch.full((len(TEXT),), -2000.0)}
    leaf = LOGITS.float().requires_grad_()
    loss = PolicyGradient(clip=0.2)(leaf, CHOSEN, **far)
    loss.backward()
    assert loss.item() == 0 and not leaf.grad.any() and math.isfinite(loss.item())


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_rows_in_chunks_give_the_same(settings, monkeypatch):
    """As over a large vocabulary, whose logits are never made as a whole."""
    from kdmesh.builtin.objectives import _chunked
    from kdmesh.signals.lazy import FactoredLogits

    monkeypatch.setattr(_chunked, "LARGE", 0)
    monkeypatch.setattr(_chunked, "CHUNK", 5 * CLASSES)
    hidden, layer = drawn(3, len(TEXT), 4), drawn(4, CLASSES, 4)
    facts = {**FACTS, "written": WRITTEN} if "clip" in settings else FACTS
    found = []
    for lazy in (False, True):
        leaves = hidden.clone().requires_grad_(), layer.clone().requires_grad_()
        student = FactoredLogits(leaves[0], leaves[1], None) if lazy else leaves[0] @ leaves[1].T
        loss = PolicyGradient(**settings)(student, CHOSEN, **facts)
        loss.backward()
        found.append((loss.detach(), *(leaf.grad for leaf in leaves)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "settings",
    [{"clip_high": 0.2}, {"length": 3}, {"average": "constant"}, {"std": "none", "eps": 0.1}, {"clip": 1.0}],
    ids=str,
)
def test_settings_that_do_nothing_are_refused(settings):
    with pytest.raises(ValueError, match=r"clip|length|eps"):
        PolicyGradientConfig(**settings)
