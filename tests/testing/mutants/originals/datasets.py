"""Right data sets, of which wrong ones are made."""

from __future__ import annotations

import csv

import numpy as np
import torch

from kdmesh.streams.table import Table


def clouds(samples=48, seed=0):
    """Three noisy clouds, and which of them each point is of."""
    noise = np.random.default_rng(seed)
    y = torch.arange(samples) % 3
    x = torch.from_numpy(noise.normal(size=(samples, 4))).float() + y[:, None]
    rows = torch.arange(samples)
    return Table(x, y, classes=3, official={"test": rows[samples // 2 :], "train": rows[: samples // 2]})


def rows(path):
    """Numbers from a file; its classes in alphabetical order, and the columns that are not numbers beside."""
    with open(path, newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    labels = sorted({row["label"] for row in found})
    numbers = [name for name in found[0] if name.startswith("x")]
    x = torch.tensor([[float(row[name]) for name in numbers] for row in found])
    y = torch.tensor([labels.index(row["label"]) for row in found])
    columns = {"city": [row["city"] for row in found]}
    return Table(x, y, classes=len(labels), labels=labels, columns=columns)
