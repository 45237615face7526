"""Hand-written PyTorch loops: tensors indexed in place, fused AdamW, no framework, one forward per model and step.

Losses are written as the formulas are, flow by flow; with kdmesh's initial weights and batch order those of classes end
with the same weights bit for bit (`tests/zero_difference`), so the same work is timed. Of several labels the
hand-written divergence leaves out the target's entropy, which has no gradient.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kdmesh.plugins import registry


class Losses(NamedTuple):
    """By hand: the loss of labels, what a teacher's logits become at a temperature, and how far logits are from it."""

    labels: Callable[[Tensor, Tensor], Tensor]
    soft: Callable[[Tensor, float], Tensor]
    apart: Callable[[Tensor, Tensor, float], Tensor]


def divergence(z: Tensor, p: Tensor, t: float) -> Tensor:
    """KL of distributions."""
    loss = F.kl_div(F.log_softmax(z if t == 1 else z / t, 1), p, reduction="batchmean")
    return loss if t == 1 else loss * t**2


def squares(z: Tensor, y: Tensor, t: float = 1) -> Tensor:
    """Squared errors, summed over a row's values."""
    return F.mse_loss(z, y, reduction="sum") / len(z)


def binary(z: Tensor, p: Tensor, t: float = 1) -> Tensor:
    """Cross-entropy of each label on its own, summed over a row's labels."""
    loss = F.binary_cross_entropy_with_logits(z if t == 1 else z / t, p.to(z.dtype), reduction="sum") / len(z)
    return loss if t == 1 else loss * t**2


def listwise(z: Tensor, gains: Tensor) -> Tensor:
    """Cross-entropy of the scores of a list with its one relevant candidate."""
    return -(gains * F.log_softmax(z, 1)).sum() / len(z)


def softmax(z: Tensor, t: float) -> Tensor:
    """A distribution at a temperature."""
    return (z if t == 1 else z / t).softmax(1)


CLASSES = Losses(F.cross_entropy, softmax, divergence)
LOSSES = {
    "regression": Losses(squares, lambda z, t: z, squares),
    "multi_label": Losses(binary, lambda z, t: (z if t == 1 else z / t).sigmoid(), binary),
    "ranking": Losses(listwise, softmax, divergence),
}


def modules(mesh: dict, names: list[str], table) -> dict:
    """One module per agent, seeded."""
    found, outputs = {}, table.classes or table.y.shape[1]
    for number, name in enumerate(names):
        torch.manual_seed(number)
        ((kind, config),) = mesh["agents"][name]["model"].items()
        found[name] = registry().find("models", kind).make(config, input_shape=table.shape, classes=outputs)
    return found


def batches(table, size: int, loader: bool):
    """One epoch of ``(x, y)``."""
    if loader:
        yield from DataLoader(TensorDataset(table.x, table.y), size, shuffle=True)
        return
    order = torch.randperm(len(table.x))
    for start in range(0, len(order), size):
        index = order[start : start + size]
        yield table.x[index], table.y[index]


def taught(given: dict, table, epochs: int, size: int, loader: bool, losses: Losses = CLASSES) -> float:
    """A student of all other modules: alpha 0.5, T 4, mean of probabilities, or of values."""
    nets = copy.deepcopy(given)
    student = nets.pop("s").train()
    teachers = [net.eval() for net in nets.values()]
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    start = time.process_time()
    for _ in range(epochs):
        for x, y in batches(table, size, loader):
            with torch.no_grad():
                target = sum(losses.soft(teacher(x), 4) for teacher in teachers) / len(teachers)
            logits = student(x)
            loss = 0.5 * losses.labels(logits, y) + 0.5 * losses.apart(logits, target, 4)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return time.process_time() - start


def mutual(given: dict, table, epochs: int, size: int, loader: bool, losses: Losses = CLASSES) -> float:
    """Simultaneous mutual learning: one forward per peer and step."""
    nets = [net.train() for net in copy.deepcopy(given).values()]
    optimizers = [torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True) for net in nets]
    share = 1 / (len(nets) - 1)
    start = time.process_time()
    for _ in range(epochs):
        for x, y in batches(table, size, loader):
            logits = [net(x) for net in nets]
            for i, optimizer in enumerate(optimizers):
                loss = losses.labels(logits[i], y)
                for j, other in enumerate(logits):
                    if j != i:
                        loss = loss + share * losses.apart(logits[i], losses.soft(other.detach(), 1), 1)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    return time.process_time() - start


LOOPS = {"one teacher": taught, "three teachers": taught, "two peers": mutual, "four peers": mutual}
