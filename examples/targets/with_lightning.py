"""Targets from the store in Lightning's Trainer: ``python examples/targets/with_lightning.py``.

It needs ``pip install lightning``. The teacher is asked once, when the data are made; the training never sees it.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import kdmesh
from kdmesh.objectives import ForwardKL


class Student(lightning.LightningModule):
    """A small model, which learns from labels and targets."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        self.kl = ForwardKL(temperature=4.0)

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        images, labels, targets = batch
        said = self.net(images)
        return F.cross_entropy(said, labels) + self.kl(said, targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def main(epochs: int = 20, store: str | None = None, **more: Any) -> float:
    """Train a teacher, keep its answers, train a student; return and print its accuracy on the test set."""
    lightning.seed_everything(0, verbose=False)
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digit).long()
    train, test = torch.randperm(len(x)).split([1300, 497])
    data = TensorDataset(x[train], y[train])
    teacher = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=5e-3)
    for _ in range(epochs):
        for images, labels in DataLoader(data, 64, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(teacher(images), labels).backward()
            optimizer.step()

    answered = kdmesh.targets(data, teacher, missing="fill", store=store)

    student = Student()
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, **more}
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", enable_model_summary=False, **settings)
    trainer.fit(student, DataLoader(answered, 64, shuffle=True))
    with torch.no_grad():
        accuracy = (student.net(x[test]).argmax(1) == y[test]).float().mean().item()
    print(f"student: {accuracy:.1%} of the test set")
    return accuracy


if __name__ == "__main__":
    main()
