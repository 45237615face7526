"""A source that several flows read is softened once for all of them, without changing a bit of any loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import kdmesh
from kdmesh.hosts.step import StepContext
from kdmesh.hosts.terms import softened
from kdmesh.objectives import CrossEntropy, ForwardKL
from kdmesh.signals import Signal


def logits(seed: int, **fields: Any) -> Tensor:
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(seed)).to(**fields)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 3.7])
@pytest.mark.parametrize("kind", [ForwardKL, CrossEntropy])
def test_the_distribution_gives_the_loss_and_gradient_of_the_logits(kind: Any, temperature: float) -> None:
    objective, context, signal = kind(temperature=temperature), StepContext(0), Signal(logits(0))
    assert objective.distribution == temperature
    found = []
    for target in (signal, softened(context, signal, logits(1), temperature)):
        own = logits(1).requires_grad_()
        loss = objective(own, target.value, form=target.form)
        found.append((loss, *torch.autograd.grad(loss, own)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_it_is_made_once_for_each_temperature_and_step() -> None:
    context, signal, own = StepContext(0), Signal(logits(0)), logits(1)
    first = softened(context, signal, own, 2.0)
    assert first.form == "probs" and signal.form == "logits"
    assert softened(context, signal, own, 2.0) is first
    assert softened(context, signal, own, 3.0) is not first
    assert softened(context, Signal(signal.value), own, 2.0) is not first
    assert softened(StepContext(1), signal, own, 2.0) is not first


@pytest.mark.parametrize(
    ("signal", "own"),
    [
        (Signal(logits(0).requires_grad_()), logits(1)),
        (Signal(logits(0), weights=torch.ones(16)), logits(1)),
        (Signal(logits(0, dtype=torch.bfloat16)), logits(1)),
        (Signal(logits(0, dtype=torch.bfloat16)), logits(1, dtype=torch.bfloat16)),
    ],
    ids=["gradient", "weights", "precision", "halves"],
)
def test_what_an_objective_first_changes_stays_as_it_is(signal: Signal, own: Tensor) -> None:
    assert softened(StepContext(0), signal, own, 2.0) is signal


class Softmaxes(TorchDispatchMode):
    """Counts softmax, not its logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._softmax.default
        return func(*args, **(kwargs or {}))


def count(peers: int, *temperatures: float) -> int:
    """How many softmaxes 4 steps of mutual learning take, beside those of measuring."""
    found = []
    for steps in (4, 8):
        mesh = kdmesh.Mesh(data={"dataset": "digits"}, train={"steps": steps, "batch_size": 16})
        names = [f"p{i}" for i in range(peers)]
        for name in names:
            mesh.agent(name, {"mlp": {"hidden": [4]}})
        for temperature in temperatures:
            mesh.connect("mutual", peers=names, objective={"kl": {"temperature": temperature}})
        with Softmaxes() as softmaxes:
            mesh.run(backend="inline")
        found.append(softmaxes.count)
    return found[1] - found[0]


def test_peers_soften_one_another_once_a_step() -> None:
    assert count(2, 2.0) == 4 * 2
    assert count(4, 2.0) == 4 * 4


def test_other_temperatures_are_other_targets() -> None:
    assert count(3, 2.0, 5.0) == 4 * 3 * 2
