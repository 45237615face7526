"""Gradients with Gaussian noise, DP-SGD: Abadi et al., "Deep Learning with Differential Privacy", 2016, Algorithm 1.

Each sample is drawn with a probability of its own (Poisson sampling). Of each drawn one the gradient of its own loss is
clipped to a norm, and their sum is released with noise. Whatever is made of such sums, weights above all, tells no
more than they do. What so many steps cost: :mod:`kdmesh.privacy.sampled`.

The sum is one of whole numbers. Each clipped gradient is rounded towards zero to the grid of its noise
(:mod:`kdmesh.privacy.gaussian`), which makes no vector longer, and integers are added: so one sample moves the sum by
the norm at most, exactly, and in whatever order they are added it is the same. A gradient that is not finite counts as
none: an error would tell of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.privacy import gaussian
from kdmesh.privacy.accounting import Gaussian

if TYPE_CHECKING:
    import numpy as np

NAME = "dp_sgd"
RELEASED = "sums of gradients, each clipped, with noise; weights are made of these alone"
_SAFE = 1 - 2.0**-20  # for the rounding of norms, far more than it is


@dataclass(frozen=True)
class DPSGD:
    """Steps of one agent.

    Attributes:
        clip: the largest norm of a sample's gradient.
        multiplier: the noise's deviation over that norm.
        rate: with what probability a sample takes part in a step.
    """

    clip: float
    multiplier: float
    rate: float

    def __post_init__(self) -> None:
        gaussian.digits(self.sigma)
        self.costs(1)

    @property
    def sigma(self) -> float:
        """The deviation of the noise on each number."""
        return self.clip * self.multiplier

    @property
    def digits(self) -> int:
        """Binary digits after the point that sums have."""
        return gaussian.digits(self.sigma)

    @property
    def purpose(self) -> str:
        """All that tells these steps from others, for noise to be another where one differs."""
        return json.dumps([NAME, self.clip, self.sigma, self.rate])

    def costs(self, steps: int) -> Gaussian:
        """What so many steps cost."""
        return Gaussian(self.clip, self.sigma, steps, self.rate)

    def sum(self, gradients: Sequence[np.ndarray]) -> np.ndarray:
        """The sum of clipped gradients in steps of the grid, ``[D]``; of each parameter ``[B, d]``, by sample."""
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(sum(np.square(part, dtype=np.float64).sum(1) for part in gradients))
            finite = np.isfinite(norms)
            factors = np.minimum(1.0, self.clip / np.where(norms > 0, norms, 1.0)) * (_SAFE * 2.0**self.digits)
        factors = np.where(finite, factors, 0.0)

        def whole(part: np.ndarray) -> np.ndarray:
            rows = part.astype(np.float64) * factors[:, None] if finite.all() else _finite(part, finite, factors)
            total: np.ndarray = np.trunc(rows).astype(np.int64).sum(0)
            return total

        return np.concatenate([whole(part) for part in gradients])

    def value(self, steps: np.ndarray, expected: float) -> np.ndarray:
        """What a sum in steps of the grid is, over how many samples are expected in it."""
        made: np.ndarray = steps * (2.0**-self.digits / expected)
        return made


def _finite(part: np.ndarray, finite: np.ndarray, factors: np.ndarray) -> np.ndarray:
    import numpy as np

    made: np.ndarray = np.where(finite[:, None], part, 0.0).astype(np.float64) * factors[:, None]
    return made


def chosen(words: np.ndarray, rate: float) -> np.ndarray:
    """The places of those that take part, by a random word of 64 bits for each: with probability ``rate``, or less by
    2^-64 at most."""
    import numpy as np

    least = math.floor(rate * 2.0**gaussian.WORD)
    return np.flatnonzero(words < np.uint64(least)) if least < 2**gaussian.WORD else np.arange(len(words))


def names(agent: str, where: str, steps: Iterable[int]) -> list[str]:
    """What steps of an agent are called in a ledger."""
    return [f"{agent}, {where}, {step}" for step in steps]
