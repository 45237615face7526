"""Right metrics, of which wrong ones are made."""

from __future__ import annotations

import torch

from kdmesh.metrics import Metric


class TopK(Metric):
    """The share of rows whose label is among the k likeliest."""

    def __init__(self, k=2):
        self.k, self.right, self.rows = k, 0, 0

    def hits(self, answers):
        column, known = answers.own
        best = answers.p.topk(min(self.k, answers.p.shape[1]), 1).indices
        hit = (best == column[:, None]).any(1)
        return hit if known is None else hit & known

    def update(self, answers):
        self.right += int(self.hits(answers).sum())
        self.rows += len(answers)

    def each(self, answers):
        return self.hits(answers).float()

    def compute(self):
        return self.right / self.rows if self.rows else None


class Brier(Metric):
    """The mean squared distance of probabilities to the label's."""

    def __init__(self):
        self.total, self.rows = 0.0, 0

    def distances(self, answers):
        truth = torch.zeros_like(answers.p).scatter_(1, answers.labels[:, None], 1.0)
        return ((answers.p - truth) ** 2).sum(1)

    def update(self, answers):
        self.total += self.distances(answers).double().sum().item()
        self.rows += len(answers)

    def each(self, answers):
        return self.distances(answers)

    def compute(self):
        return self.total / self.rows if self.rows else None


class Spread(Metric):
    """The standard deviation of what is missing to the values."""

    def __init__(self):
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def update(self, answers):
        apart = (answers.labels - answers.scores).double().flatten()
        self.count += len(apart)
        self.sum += apart.sum().item()
        self.squares += (apart**2).sum().item()

    def compute(self):
        if not self.count:
            return None
        mean = self.sum / self.count
        return max(0.0, self.squares / self.count - mean**2) ** 0.5


class Recalls(Metric):
    """The share of right answers of each class."""

    def __init__(self):
        self.right = self.rows = None

    def update(self, answers):
        count = answers.total
        if self.right is None:
            self.right = torch.zeros(count, dtype=torch.int64)
            self.rows = torch.zeros(count, dtype=torch.int64)
        self.rows += answers.labels.cpu().bincount(minlength=count)
        self.right += answers.labels[answers.hit].cpu().bincount(minlength=count)

    def compute(self):
        if self.rows is None:
            return None
        shares = self.right.double() / self.rows.clamp(min=1)
        return [value if rows else None for value, rows in zip(shares.tolist(), self.rows.tolist(), strict=True)]


class PerCharacter(Metric):
    """The loss for each character of text."""

    def __init__(self):
        self.total, self.characters = 0.0, 0

    def update(self, answers):
        own = answers.log_p.gather(1, answers.labels[:, None])
        self.total -= own.double().sum().item()
        self.characters += answers.characters

    def compute(self):
        return self.total / self.characters if self.characters else None
