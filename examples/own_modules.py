"""Your own modules and data: three teachers that were trained elsewhere teach a small student as an ensemble.

Run ``python examples/own_modules.py``. Any ``nn.Module`` that maps a batch to logits will
do, and any map-style data set.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import kdmesh


def main(epochs: int = 20, backend: str = "inline") -> kdmesh.Result:
    """Train teachers in plain PyTorch, distil them, and print who knows how much. ``backend``: inline or ray."""
    torch.manual_seed(0)
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digit).long()
    order = torch.randperm(len(x))
    train, validation, test = (TensorDataset(x[rows], y[rows]) for rows in order.split([1000, 300, 497]))

    modules = [trained(wide(width), train, epochs) for width in (128, 192, 256)]  # any code of your own

    mesh = kdmesh.Mesh(
        task="classification",
        data=kdmesh.data(train=train, validation=validation, test=test),
        train={"epochs": epochs, "batch_size": 64, "optimizer": {"adamw": {"lr": 5e-3}}},
    )
    teachers = [mesh.agent(f"t{i}", module, update="frozen") for i, module in enumerate(modules)]
    student = mesh.agent("student", Small())
    mesh.connect("ensemble", teachers=teachers, student=student, consensus="mean", objective={"kl": {"temperature": 4}})
    result = mesh.run(backend=backend)

    for name in (*teachers, student):
        print(
            f"{name:8} {result.summary['agents'][name]['parameters']:7,} parameters  "
            f"{result[name].metrics['test']['accuracy']:.1%} of the test set"
        )
    module = result[student].module  # an ordinary module, in eval mode
    with torch.no_grad():
        guesses = module(test.tensors[0][:5]).argmax(1).tolist()
    print(f"the student reads {test.tensors[1][:5].tolist()} as {guesses}")
    return result


class Small(nn.Module):
    """A student of your own: 64 pixels, 16 hidden units, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, 10]``."""
        return self.head(F.relu(self.hidden(x)))


def wide(width: int) -> nn.Module:
    """A teacher: two hidden layers of this width."""
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def trained(module: nn.Module, data: TensorDataset, epochs: int) -> nn.Module:
    """Train on labels in plain PyTorch."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(epochs):
        for x, y in DataLoader(data, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(module(x), y).backward()
            optimizer.step()
    return module.eval()


if __name__ == "__main__":
    main()
