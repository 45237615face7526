"""What votes cost in hindsight: the data-dependent bound of PATE, which is private itself.

Papernot, Song, Mironov, Raghunathan, Talwar and Erlingsson, "Scalable Private Learning with PATE", 2018. Where teachers
agree by far, noise changes the answer almost never, and little was told: Proposition 7 bounds the probability q that
the noisy argmax is not the class with most votes, and Theorem 6 the Renyi divergence, given q and what the mechanism
costs on any data at two higher orders, which Proposition 10 chooses.

**These figures are made of the votes, so they tell of the private data.** Who publishes one spends privacy that no
account here has. They are for the party's own eyes; no budget is held to them, and they stand in no ledger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdmesh.privacy.accounting import ORDERS

if TYPE_CHECKING:
    import numpy as np


def private_log_other(votes: np.ndarray, sigma: float, grid: float = 0.0) -> np.ndarray:
    """The log of Proposition 7's bound on q for each row of votes ``[N, K]``: that noise makes another class win.

    ``grid``: to which multiples noise is rounded. Each of two numbers moves by half of that, so gaps count for as much
    less.
    """
    import numpy as np
    from scipy.special import log_ndtr, logsumexp

    counts = np.asarray(votes, dtype=float)
    top = counts.argmax(1)
    rows = np.arange(len(counts))
    scores = log_ndtr(-(counts[rows, top][:, None] - counts - grid) / (math.sqrt(2) * sigma))
    scores[rows, top] = -np.inf
    return np.minimum(logsumexp(scores, 1), math.log1p(-1 / counts.shape[1]))


def private_log_side(votes: np.ndarray, threshold: float, sigma: float, grid: float = 0.0) -> np.ndarray:
    """For each row the log of the smaller probability: that its noisy largest count reaches a threshold, or not."""
    import numpy as np
    from scipy.special import log_ndtr

    gap = np.abs(np.asarray(votes, dtype=float).max(1) - threshold)
    return log_ndtr(-(gap - grid / 2) / sigma).clip(max=math.log(0.5))


def private_rdp(log_q: float, rho: float, orders: Sequence[float] = ORDERS) -> list[float]:
    """The Renyi divergence of one answer at each order, given the log of a bound on q: Theorem 6.

    ``rho``: what the mechanism costs on any data, divided by the order: D^2 / (2 sigma^2).
    """
    if log_q == -math.inf:
        return [0.0 for _ in orders]
    plain = [order * rho for order in orders]
    second = math.sqrt(-log_q / rho)  # Proposition 10
    first = second + 1
    if not second > 1:
        return plain
    bound = (second - 1) * second * rho - second * (math.log1p(1 / (first - 1)) + math.log1p(1 / (second - 1)))
    if log_q > bound or -log_q <= second * rho:
        return plain
    stays = _log1mexp(log_q)
    log_a = stays - _log1mexp((log_q + second * rho) * (1 - 1 / second))
    log_b = first * rho - log_q / (first - 1)
    return [
        least if order > first else min(least, max(0.0, _dependent(order, log_q, stays, log_a, log_b)))
        for order, least in zip(orders, plain, strict=True)
    ]


def _dependent(order: float, log_q: float, stays: float, log_a: float, log_b: float) -> float:
    """log((1 - q) A^(order - 1) + q B^(order - 1)) / (order - 1)."""
    one, two = stays + (order - 1) * log_a, log_q + (order - 1) * log_b
    most = max(one, two)
    return (most + math.log1p(math.exp(-abs(one - two)))) / (order - 1)


def _log1mexp(x: float) -> float:
    """log(1 - exp(x)), for x < 0."""
    return math.log1p(-math.exp(x)) if x < -1 else math.log(-math.expm1(x))
