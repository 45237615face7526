"""No mesh at all: kdmesh's objectives and consensus rules in a training loop of your own.

Run ``python examples/own_loop.py``. Three models are trained on labels; one of them then lies. A student learns from
their mean, another from their median, and only the second does not mind the liar.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from kdmesh.consensus import Mean, Median
from kdmesh.objectives import ForwardKL

TEMPERATURE = 4.0  # one temperature for the consensus and for the loss that reads it


def main(epochs: int = 30) -> dict[str, float]:
    """Train everyone; returns and prints the students' test accuracy by rule."""
    torch.manual_seed(0)
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digit).long()
    train, test = torch.randperm(len(x)).split([1300, 497])

    teachers = [model(64) for _ in range(3)]
    for teacher in teachers:
        fit(teacher, F.cross_entropy, x[train], y[train], epochs)
    with torch.no_grad():
        logits = torch.stack([teacher(x[train]) for teacher in teachers])  # [M, N, C]
    logits[2] *= -3  # the liar: what it finds least likely it now says, and with certainty

    kl = ForwardKL(temperature=TEMPERATURE)
    found = {}
    for rule in (Mean(), Median()):
        target = rule((logits / TEMPERATURE).softmax(-1), logits=logits)  # [N, C], distributions at this temperature
        torch.manual_seed(1)  # both students start alike and see the same batches
        student = model(16)
        fit(student, lambda guess, wanted: kl(guess, wanted, form="probs"), x[train], target, epochs)
        with torch.no_grad():
            found[type(rule).__name__] = (student(x[test]).argmax(1) == y[test]).float().mean().item()
    for name, accuracy in found.items():
        print(f"student of the {name:7} {accuracy:.1%} of the test set")
    return found


def model(width: int) -> nn.Module:
    """A model with one hidden layer."""
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def fit(module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, target: Tensor, epochs: int) -> None:
    """Minimise ``loss(logits, target)`` over ``x [N, 64]`` and labels ``[N]`` or distributions ``[N, C]``."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss(module(x[batch]), target[batch]).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
