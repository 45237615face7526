"""Updates by the kernels alone are, bit for bit, those of the optimiser's own ``step``."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from kdmesh.hosts.fused import kernel_of
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.spec import TrainSpec

OPTIMIZERS: list[dict[str, Any]] = [
    {"adamw": {"lr": 0.03}},
    {"adam": {"lr": 0.03, "betas": [0.8, 0.95], "weight_decay": 0.1}},
    {"adam": {"lr": 0.03, "maximize": True}},
    {"sgd": {"lr": 0.1}},
    {"sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}},
]
UPDATES = 7


def weights(optimizer: dict[str, Any], **fields: Any) -> LocalWeights:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    made = LocalWeights("a", module, TrainSpec.model_validate({"optimizer": optimizer, **fields}))
    made.start(UPDATES)
    return made


def descend(one: LocalWeights, seed: int, alone: bool = False, without: int | None = None) -> None:
    """One update; ``alone``: as in a plain loop; ``without``: a parameter that gets no gradient."""
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    one.zero()
    one.module(x).square().sum().backward()
    if without is not None:
        one.parameters[without].grad = None
    if not alone:
        one.step()
        return
    assert one.optimizer is not None
    if one.settings.clip is not None:
        nn.utils.clip_grad_norm_(one.parameters, one.settings.clip)
    one.optimizer.step()
    if one.schedule is not None:
        one.schedule.step()
    one.pending = False


def same(one: LocalWeights, other: LocalWeights) -> bool:
    """Whether parameters and everything that the optimisers remember have equal bits."""
    assert one.optimizer is not None and other.optimizer is not None
    pairs = zip(one.parameters, other.parameters, strict=True)
    return all(
        torch.equal(p, q)
        and one.optimizer.state[p].keys() == other.optimizer.state[q].keys()
        and all(torch.equal(v, other.optimizer.state[q][k]) for k, v in one.optimizer.state[p].items() if v is not None)
        for p, q in pairs
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_the_kernel_alone_is_the_step(optimizer: dict[str, Any]) -> None:
    ours, theirs = (weights(optimizer, schedule="cosine", clip=1.0) for _ in range(2))
    for update in range(UPDATES):
        descend(ours, update)
        descend(theirs, update, alone=True)
    assert ours._kernel is not None
    assert same(ours, theirs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_missing_gradient_is_the_optimisers_business(optimizer: dict[str, Any]) -> None:
    ours, theirs = weights(optimizer), weights(optimizer)
    for update in range(UPDATES):
        without = 1 if update in (2, 4) else None
        descend(ours, update, without=without)
        descend(theirs, update, alone=True, without=without)
    assert ours._kernel is not None
    assert same(ours, theirs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_loaded_state_is_gone_on_from(optimizer: dict[str, Any]) -> None:
    whole, first = weights(optimizer), weights(optimizer)
    for update in range(UPDATES):
        descend(whole, update)
    for update in range(3):
        descend(first, update)
    second = weights(optimizer)
    for update in range(2):  # its kernel works on a state that is then replaced
        descend(second, 50 + update)
    second.module.load_state_dict(first.module.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))  # type: ignore[union-attr]
    for update in range(3, UPDATES):
        descend(second, update)
    assert same(second, whole)


@pytest.mark.parametrize(
    "optimizer", [{"rprop": {}}, {"adam": {"amsgrad": True}}, {"adamw": {"foreach": True}}], ids=str
)
def test_who_has_no_such_kernel_is_asked_itself(optimizer: dict[str, Any]) -> None:
    one = weights(optimizer)
    descend(one, 0)
    assert one._kernel is None
    before = [p.detach().clone() for p in one.parameters]
    descend(one, 1)
    assert not any(torch.equal(p, q) for p, q in zip(one.parameters, before, strict=True))


def test_hooks_are_called() -> None:
    one, called = weights({"adamw": {}}), []
    handle = register_optimizer_step_post_hook(lambda *_: called.append(1))
    try:
        for update in range(3):
            descend(one, update)
    finally:
        handle.remove()
    assert len(called) == 3
    assert one.optimizer is not None and kernel_of(one.optimizer) is not None
