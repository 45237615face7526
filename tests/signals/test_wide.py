"""Devices without float64: what computes in it does so on the CPU, or in float32.

There is no such device here. Tensors on `meta` stand for those on it: a float64 one there is an error, as it would be
on `mps`, and what leaves it is zeros. Values are not looked at: what float64 computes on the CPU, other tests hold.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdmesh.hosts import metrics
from kdmesh.hosts.step import Losses
from kdmesh.hosts.update import Update
from kdmesh.plugins import registry
from kdmesh.signals import wide
from kdmesh.testing import ObjectiveContract

M, B, C = 3, 6, 5
SETTINGS = {
    "weighted": {"weights": [1, 2, 3]},
    "route": {"column": "x", "to": {"a": "a"}, "else": "mean"},
    "staleness": {"exponent": 0.5},
    "threshold_vote": {"votes": 2},
}


class Narrow(TorchDispatchMode):
    """Refuses float64 on `meta`, and lets values leave it as zeros."""

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if call is torch.ops.aten._to_copy.default and args[0].is_meta and str(kwargs.get("device")) == "cpu":
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if call is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 0
        found = call(*args, **kwargs)
        for value in tree_leaves(found):
            odd = isinstance(value, Tensor) and value.is_meta and value.dtype == torch.float64
            assert not odd, f"{call} makes float64 on a device that has none"
        return found


def there(value: Tensor) -> Tensor:
    """The value on `meta`, in float32 where it is no whole number."""
    return (value.float() if value.is_floating_point() else value).to("meta")


@pytest.fixture
def narrow(monkeypatch):
    """`meta` is a device without float64."""
    monkeypatch.setattr(wide, "NARROW", ("mps", "meta"))
    with Narrow():
        yield


def test_float64_on_it_is_found(narrow):
    with pytest.raises(AssertionError, match="makes float64"):
        torch.zeros(2, device="meta").double()
    assert wide.widened(torch.ones(2, device="meta")).dtype == torch.float64


def test_which_devices_have_it():
    assert wide.wide(torch.device("mps")) == torch.float32
    assert wide.wide(torch.device("cuda:1")) == wide.wide(torch.device("cpu")) == torch.float64
    value = torch.tensor([0.1], requires_grad=True)
    wide.widened(value).sum().backward()
    assert value.grad is not None and torch.equal(value.grad, torch.ones(1))


OURS = [offer for offer in registry().offers("consensus") if offer.factory.startswith("kdmesh.builtin")]
RULES = [offer for offer in OURS if not offer.releases]  # what releases answers on a party's account alone


@pytest.mark.parametrize("offer", RULES, ids=[offer.name for offer in RULES])
def test_every_rule_combines_there(offer, narrow):
    rule = offer.make(SETTINGS.get(offer.name, {}))
    for space in {"probs", "logits", "marginals"} & {*offer.spaces}:
        rule.space, rule.temperature, rule.classes, rule.sources = space, 2.0, C, ["a", "b", "c"]
        more = {"labels": torch.zeros(B, dtype=torch.int64, device="meta")} if offer.needs_labels else {}
        more |= {"errors": torch.ones(M, C, dtype=torch.float64)} if offer.needs_errors else {}
        if offer.needs_column:
            rule.setup(["a", "b", "c"], C, [], columns=["a"])
            more["column"] = torch.zeros(B, dtype=torch.int64, device="meta")
        elif offer.stateful:
            with torch.device("meta"):
                rule.setup(("a", "b", "c"), C, ())
        values = torch.rand(M, B, C, device="meta")
        found = rule(values, logits=values, present=torch.ones(M, B, dtype=torch.bool, device="meta"), **more)
        found = found[0] if isinstance(found, tuple) else found  # of a rule that abstains
        assert found.device == values.device and found.dtype == torch.float32


OBJECTIVES = [offer for offer in registry().offers("objectives") if offer.factory.startswith("kdmesh.builtin")]


@pytest.mark.parametrize("offer", OBJECTIVES, ids=[offer.name for offer in OBJECTIVES])
def test_every_objective_compares_there(offer, narrow):
    shape = (4, 7) if offer.name == "in_batch" else (5,) if offer.name.startswith("attention_") else None
    kit = type("Kit", (ObjectiveContract,), {"__test__": False, "shape": shape, "target_shape": shape})()
    made = kit.build(offer, {}).to("meta")
    for form in offer.forms:
        sides = [there(value) for value in kit.sides(offer, form)]
        beside = {name: there(value) for name, value in kit.beside(offer, torch.arange(6)).items()}
        loss = made(*sides, form=form, **beside)
        assert loss.is_meta and loss.dtype == torch.float32


def test_agreement_is_counted():
    same = torch.tensor([[0, 1, 2], [0, 1, 1], [0, 0, 0]])
    assert metrics.agreement(same) == (2 / 3 + 1 / 3 + 1 / 3) / 3 and metrics.churn(same[0], same[1]) == 1 / 3


def test_agreement_needs_no_float64(narrow):
    answers = torch.zeros(2, B, dtype=torch.int64, device="meta")
    assert metrics.agreement(answers) == 0 and metrics.churn(answers[0], answers[1]) == 0


@pytest.mark.parametrize("names", [(), ("cpu",)])
def test_losses_are_told_in_what_the_device_has(names, monkeypatch):
    monkeypatch.setattr(wide, "NARROW", names)
    stacked, stack = [], torch.stack
    monkeypatch.setattr(torch, "stack", lambda values: stacked.append(stack(values)) or stacked[-1])
    update = Update.__new__(Update)
    update._by_flow = [(3, (0, 1), [torch.tensor(0.5), 0.25])]
    assert update.told() == [Losses(3, (0, 1), (0.5, 0.25))]
    assert [value.dtype for value in stacked] == [torch.float32 if names else torch.float64]
