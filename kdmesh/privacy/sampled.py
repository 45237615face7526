"""What Gaussian noise costs where each sample takes part by chance: the sampled Gaussian mechanism, as in DP-SGD.

Each sample is drawn with probability q, by itself and in secret (Poisson sampling), and a sum of vectors of the drawn
ones, each of norm 1 at most, is released with noise N(0, sigma^2) on each coordinate. Between data sets of which one
has a sample more its Renyi divergence of order a is log A / (a - 1) at most, in both directions, with

    A = E[((1 - q) + q exp((2 z - 1) / (2 sigma^2)))^a],  z ~ N(0, sigma^2)

(Mironov, Talwar and Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism", 2019, Theorems 4 and 5).
For a whole order that is a binomial sum (Section 3.3 there); for any other one splits the integral where both parts of
the sum are equal, and each half is a binomial series. These are the formulas of opacus and dp-accounting, too; the
latter takes, for such an order, each term's size for the term, and so a little too much.

It holds for no other way to draw: batches that a shuffle cuts, each sample once an epoch, are not accounted for by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_MORE = 64  # terms of a series beyond its order, at which is looked at a time
_SMALL = -37.0  # log of a share of the sum that no digit of it depends on


@lru_cache(maxsize=64)
def divergences(rate: float, multiplier: float, orders: Sequence[float]) -> tuple[float, ...]:
    """The Renyi divergence of one step at each order, above 1; ``multiplier``: sigma over a sample's norm, at most."""
    if rate == 1:
        return tuple(order / (2 * multiplier**2) for order in orders)
    return tuple(max(0.0, _log_moment(rate, multiplier, order)) / (order - 1) for order in orders)


def _log_moment(rate: float, sigma: float, order: float) -> float:
    """Log A of an order."""
    return _whole(rate, sigma, int(order)) if order == int(order) else _between(rate, sigma, order)


def _whole(rate: float, sigma: float, order: int) -> float:
    """sum_k C(a, k) (1 - q)^(a - k) q^k exp((k^2 - k) / (2 sigma^2)), in logs: all terms are positive."""
    import numpy as np
    from scipy.special import gammaln, logsumexp

    k = np.arange(order + 1.0)
    chosen = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms = chosen + k * math.log(rate) + (order - k) * math.log1p(-rate) + (k * k - k) / (2 * sigma**2)
    return float(logsumexp(terms))


def _between(rate: float, sigma: float, order: float) -> float:
    """The two series about z0, where (1 - q) = q exp((2 z0 - 1) / (2 sigma^2)); past the order signs alternate."""
    import numpy as np
    from scipy.special import gammaln, gammasgn, log_ndtr, logsumexp

    middle = sigma**2 * (math.log1p(-rate) - math.log(rate)) + 0.5
    count = math.ceil(order) + _MORE
    while True:
        k = np.arange(float(count))
        rest = order - k
        chosen = gammaln(order + 1) - gammaln(k + 1) - gammaln(rest + 1)
        signs = gammasgn(rest + 1)
        below = k * math.log(rate) + rest * math.log1p(-rate) + _square(k, sigma) + log_ndtr((middle - k) / sigma)
        above = rest * math.log(rate) + k * math.log1p(-rate) + _square(rest, sigma) + log_ndtr((rest - middle) / sigma)
        terms = np.concatenate([chosen + below, chosen + above])
        total = float(logsumexp(terms, b=np.concatenate([signs, signs])))
        if max(terms[count - 1], terms[-1]) < total + _SMALL:
            return total
        count *= 2


def _square(k: np.ndarray, sigma: float) -> np.ndarray:
    return (k * k - k) / (2 * sigma**2)
