"""Samples of weight 0 may hold -inf or NaN, of either side: losses and gradients are as if they held anything else."""

import itertools

import pytest
import torch
from kdmesh.plugins import registry

from kdmesh_relational.offers import OBJECTIVES

WEIGHTS = [1.0, 0.0, 0.5, 0.0, 2.0, 1.0]
VECTOR, TOKENS, MAPS = (6,), (4, 6), (3, 2, 2)
OURS = {offer.name: offer for offer in OBJECTIVES}
CASES = [
    ("rkd", {}, VECTOR),
    ("rkd", {"faithful": "code"}, VECTOR),
    ("sp", {}, VECTOR),
    ("crd", {"dim": 4}, VECTOR),
    ("crd", {"dim": 4, "faithful": "paper"}, VECTOR),
    ("minilm", {"heads": 2}, TOKENS),
    ("hint", {"adapter": "always"}, VECTOR),
    ("hint", {"adapter": "always"}, TOKENS),
    ("hint", {"adapter": "always"}, MAPS),
    ("attention", {}, MAPS),
    ("attention_mse", {}, VECTOR),
    ("attention_kl", {}, VECTOR),
]


def found(name, config, shape, dtype, spoilt, value):
    """Loss, gradients at both sides' audible rows and of the objective's own weights; silent rows hold ``value``."""
    torch.manual_seed(0)
    made = (OURS.get(name) or registry().find("objectives", name)).make(config)
    facts = {"ids": torch.arange(6), "labels": torch.arange(6) % 3} if name == "crd" else {}
    made.setup(torch.Size(shape), torch.Size(shape), **facts)
    made.to(dtype)
    drawn = torch.Generator().manual_seed(1)
    sides = [torch.randn(6, *shape, generator=drawn, dtype=torch.float64).to(dtype) for _ in "st"]
    if name.startswith("attention_"):  # rows of attention
        sides = [side.softmax(-1) for side in sides]
    weights = torch.tensor(WEIGHTS, dtype=dtype)
    for side, spoils in zip(sides, spoilt, strict=True):
        if spoils:
            side[weights == 0] = value
    student, target = (side.requires_grad_() for side in sides)
    loss = made(student, target, weights=weights, **facts)
    loss.backward()
    assert not student.grad[weights == 0].any(), "a silent sample has a gradient"
    assert target.grad is None or not target.grad[weights == 0].any(), "a silent target has a gradient"
    own = {key: one.grad for key, one in made.named_parameters()}
    kept = {key: one for key, one in made.state_dict().items() if one.is_floating_point()}
    return {
        "loss": loss.detach(),
        "student": student.grad[weights != 0],
        **own,
        **{f"kept {k}": v for k, v in kept.items()},
    }


@pytest.mark.parametrize(("name", "config", "shape"), CASES, ids=str)
def test_what_silent_samples_hold_does_not_matter(name, config, shape):
    sure = found(name, config, shape, torch.float64, (False, False), 0.0)
    assert sure["loss"].isfinite() and sure["student"].abs().max() > 1e-4
    for dtype, (spoilt, value) in itertools.product(
        (torch.float64, torch.float32),
        itertools.product([(True, False), (False, True), (True, True)], [-torch.inf, torch.inf, torch.nan]),
    ):
        clean = found(name, config, shape, dtype, (False, False), 0.0)
        given = found(name, config, shape, dtype, spoilt, value)
        for part, expected in clean.items():
            assert torch.equal(given[part], expected), (part, dtype, spoilt, value)
            torch.testing.assert_close(given[part].double(), sure[part].double(), rtol=2e-3, atol=2e-5)


def test_every_objective_between_hidden_signals_stands_here():
    known = registry()
    ours = {one.name for one in known.offers("objectives") if known.origin("objectives", one.name) is None}
    hidden = {name for name in ours if known.find("objectives", name).reads == "hidden"} | set(OURS)
    others = {"in_batch", "prototype"}  # one is of a query's candidates, one compares with means of classes
    assert {name for name, *_ in CASES} | others == hidden
