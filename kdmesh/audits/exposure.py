"""Exposure of canaries: Carlini et al., "The Secret Sharer: Evaluating and Testing Unintended Memorization", 2019.

A canary is a made-up text with a secret part that was planted in what a model learned. Its exposure is
``log2 |R| - log2 rank``, of its rank by loss, from 1, the least, among the |R| texts that it could have been as well
(Definition 5). By chance it is 1.44 on average; the most that |R| candidates can show is ``log2 |R|``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


@dataclass(frozen=True)
class Exposure:
    """The exposure of one canary.

    Attributes:
        bits: how much of the secret its rank gives away.
        rank: among all candidates, from 1; equal losses share the middle of their ranks.
        candidates: how many there are, the canary among them.
        last: the last of the ranks that equal losses share.
    """

    bits: float
    rank: float
    candidates: int
    last: int

    @property
    def most(self) -> float:
        """The most bits that so many candidates can show."""
        return math.log2(self.candidates)


def exposure(canary: float, others: np.ndarray) -> Exposure:
    """The exposure of a canary by its loss, among the losses ``[N]`` of candidates that were not planted."""
    import numpy as np

    if others.ndim != 1 or not len(others) or not np.isfinite(others).all() or not math.isfinite(canary):
        raise MeshError("losses that are none", where="exposure", instead="a finite loss for each candidate")
    less, equal = int((others < canary).sum()), int((others == canary).sum())
    rank = 1 + less + equal / 2
    return Exposure(math.log2(len(others) + 1) - math.log2(rank), rank, len(others) + 1, 1 + less + equal)


def p_value(found: Sequence[Exposure]) -> float:
    """How likely canaries that nobody learned are as much exposed in all, or more: their ranks are uniform then.

    By Fisher's method: ``-2 sum(log(rank / candidates))`` is chi-squared with two degrees of freedom for each, but for
    the steps of ranks. Of equal losses the last rank counts: the middle one would be rare more often than it says.
    """
    from scipy.stats import chi2

    if not found:
        raise MeshError("no canary", where="exposure", instead="at least one")
    whole = -2 * sum(math.log(one.last / one.candidates) for one in found)
    return float(chi2.sf(whole, 2 * len(found)))


def mean_of(found: Sequence[Exposure]) -> tuple[float, float, float]:
    """The mean of exposures in bits, and its interval of 95% by Student's t; of one alone, all that there could be."""
    import numpy as np
    from scipy.stats import t

    if not found:
        raise MeshError("no canary", where="exposure", instead="at least one")
    bits = np.array([one.bits for one in found])
    mean, most = float(bits.mean()), max(one.most for one in found)
    if len(found) == 1:
        return mean, 0.0, most
    half = float(t.ppf(0.975, len(found) - 1) * bits.std(ddof=1) / len(found) ** 0.5)
    return mean, max(0.0, mean - half), min(most, mean + half)
