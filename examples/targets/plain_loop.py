"""A plain loop whose teachers are asked once: ``python examples/targets/plain_loop.py``.

Three teachers are trained; `kdmesh.targets` keeps what they say of the training samples in the store. A student then
learns from their mean with no teacher at hand, in any order and batch size. Run it again, and they are not asked.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import kdmesh
from kdmesh.objectives import ForwardKL

TEMPERATURE = 4.0


def main(epochs: int = 20, store: str | None = None, workers: int = 0) -> float:
    """Train everyone; return and print the student's accuracy on the test set. ``store``: None, the user's own."""
    torch.manual_seed(0)
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digit).long()
    train, test = torch.randperm(len(x)).split([1300, 497])
    data = TensorDataset(x[train], y[train])
    teachers = {f"t{number}": trained(model(64), data, epochs) for number in range(3)}

    answered = kdmesh.targets(data, teachers, rule="mean", temperature=TEMPERATURE, missing="fill", store=store)

    student, kl = model(16), ForwardKL(temperature=TEMPERATURE)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3)
    for _ in range(epochs):
        for images, labels, target in DataLoader(answered, 64, shuffle=True, num_workers=workers):
            optimizer.zero_grad()
            said = student(images)
            loss = F.cross_entropy(said, labels) + kl(said, target, form=answered.form)
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        accuracy = (student(x[test]).argmax(1) == y[test]).float().mean().item()
    print(f"student of three teachers: {accuracy:.1%} of the test set")
    return accuracy


def model(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def trained(module: nn.Module, data: TensorDataset, epochs: int) -> nn.Module:
    """A teacher that has learned from labels."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(epochs):
        for images, labels in DataLoader(data, 64, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(module(images), labels).backward()
            optimizer.step()
    return module


if __name__ == "__main__":
    main()
