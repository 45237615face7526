"""Right gates, of which wrong ones are made."""

from __future__ import annotations

import torch

from kdmesh.gates import Gate


class Sure(Gate):
    """Rows of which the signal is sure enough."""

    def __init__(self, least=0.6):
        super().__init__()
        self.least = least

    def forward(self, *, confidence):
        return (confidence >= self.least).to(confidence.dtype)


class Usual(Gate):
    """Shut where the loss is unusually large, by a running mean."""

    def __init__(self, factor=1.3):
        super().__init__()
        self.factor = factor
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, *, losses, counted):
        now = losses.double().sum() / counted.sum().clamp(min=1)
        unusual = bool(self.count > 0) and bool(now > self.factor * self.mean)
        self.count += 1
        self.mean += (now - self.mean) / self.count
        return not unusual


class Better(Gate):
    """Rows in which the signal gives the label more than the student does; it needs labels."""

    def forward(self, *, own, signal, labels):
        mine, other = (side.softmax(-1).gather(1, labels[:, None])[:, 0] for side in (own, signal))
        return (other > mine).to(own.dtype)


class Lucky(Gate):
    """Rows by chance."""

    def __init__(self, share=0.5):
        super().__init__()
        self.share = share

    def forward(self, *, losses):
        return (torch.rand(losses.shape, device=losses.device) < self.share).to(losses.dtype)


class Seen(Gate):
    """Rows from their second visit on, by their ids."""

    def __init__(self, rows=128):
        super().__init__()
        self.register_buffer("seen", torch.zeros(rows, dtype=torch.bool))

    def forward(self, *, ids, losses):
        factors = self.seen[ids].to(losses.dtype)
        self.seen[ids] = True
        return factors


class Late(Gate):
    """Open once the figures on validation are good enough."""

    def forward(self, *, metrics, epoch):
        good = [metrics[name] for name in sorted(metrics) if name == "accuracy"]
        return epoch > 2 and sum(good) > 0.5
