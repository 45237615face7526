"""Hand-written PyTorch loops: tensors indexed in place, fused AdamW, no framework, one forward per model and step.

Losses are written as the formulas are, flow by flow; with kdmesh's initial weights and batch order these loops end with
the same weights bit for bit (`tests/zero_difference`), so the same work is timed.
"""

from __future__ import annotations

import copy
import time

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kdmesh.plugins import registry


def modules(mesh: dict, names: list[str], table) -> dict:
    """One module per agent, seeded."""
    found = {}
    for number, name in enumerate(names):
        torch.manual_seed(number)
        ((kind, config),) = mesh["agents"][name]["model"].items()
        found[name] = registry().find("models", kind).make(config, input_shape=table.shape, classes=table.classes)
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


def taught(given: dict, table, epochs: int, size: int, loader: bool) -> float:
    """A student of all other modules: alpha 0.5, T 4, mean of probabilities."""
    nets = copy.deepcopy(given)
    student = nets.pop("s").train()
    teachers = [net.eval() for net in nets.values()]
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    start = time.process_time()
    for _ in range(epochs):
        for x, y in batches(table, size, loader):
            with torch.no_grad():
                target = sum((teacher(x) / 4).softmax(1) for teacher in teachers) / len(teachers)
            logits = student(x)
            kl = F.kl_div(F.log_softmax(logits / 4, 1), target, reduction="batchmean") * 16
            loss = 0.5 * F.cross_entropy(logits, y) + 0.5 * kl
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return time.process_time() - start


def mutual(given: dict, table, epochs: int, size: int, loader: bool) -> float:
    """Simultaneous mutual learning: one forward per peer and step."""
    nets = [net.train() for net in copy.deepcopy(given).values()]
    optimizers = [torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True) for net in nets]
    share = 1 / (len(nets) - 1)
    start = time.process_time()
    for _ in range(epochs):
        for x, y in batches(table, size, loader):
            logits = [net(x) for net in nets]
            for i, optimizer in enumerate(optimizers):
                loss = F.cross_entropy(logits[i], y)
                for j, other in enumerate(logits):
                    if j != i:
                        loss = loss + share * F.kl_div(
                            F.log_softmax(logits[i], 1), F.softmax(other.detach(), 1), reduction="batchmean"
                        )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    return time.process_time() - start


LOOPS = {"one teacher": taught, "three teachers": taught, "two peers": mutual, "four peers": mutual}
