"""What paired trials show: differences with intervals, effect sizes, and verdicts in words.

Two things are compared by the differences of their figures, trial by trial: trials share their split, and as far as
they can their initial weights and batches. Student, "The Probable Error of a Mean", 1908 (paired t); Schuirmann, "A
Comparison of the Two One-Sided Tests Procedure and the Power Approach", 1987 (equal within a margin); Holm, "A Simple
Sequentially Rejective Multiple Test Procedure", 1979 (several comparisons at once); Hedges, "Distribution Theory for
Glass's Estimator of Effect Size", 1981; Nadeau and Bengio, "Inference for the Generalization Error", 2003 (splits of
the same samples); Efron, "Better Bootstrap Confidence Intervals", 1987 (over test samples).

Seeds on one split measure how training varies. They say nothing of which samples the test set happens to hold:
:func:`over_samples` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, TypedDict

from kdmesh.tasks import Figure

if TYPE_CHECKING:
    import numpy as np

ACCURACY = Figure("accuracy")
LEVEL = 0.05
"""The share of differences that are called one where there is none. Intervals cover with 1 minus this."""
POWER = 0.8
RESAMPLES = 9999
ONE_NUMBER = (
    "Where every pair differs by one and the same number there is no spread to test by, and no interval: an exact sign "
    "test decides, which needs 6 pairs."
)
ROUNDING = 1e-12
"""Of the figures: a spread of differences below this share of them is none."""
BETTER, WORSE, NOT_SHOWN, EQUAL = "better", "worse", "no difference shown", "equal"
NO_VERDICT = "no verdict"
"""What stands in place of a verdict that is None."""
SAME = "equal in every pair"
"""Where all differences are exactly 0: there is no spread to test by, and an interval of no width says nothing."""
ALL_SAME = (
    "Equal in every pair: the figures are the same number, trial by trial. There is no spread to test by, and the "
    "interval has no width; other seeds, or more test samples, may still differ."
)


def than(verdict: str | None) -> str:
    """What joins a verdict with whom it is against: better `than`, no difference shown `to`, no verdict `against`."""
    if verdict is None:
        return "against"
    return "than" if verdict in (BETTER, WORSE) else "to"


class Difference(TypedDict):
    """Paired differences a - b of ``n`` trials.

    Attributes:
        mean: of the differences, in the metric's unit.
        half_width: half of the 95% t interval of the mean; None for one trial, as every figure below but the counts.
        se: the mean's standard error, ``sd * sqrt(1 / n + shared)``, see :func:`paired`.
        sd: their standard deviation (n - 1); 0 where it is no more than rounding.
        p: two-sided, of a paired t test that the mean is 0. Where all differences are one number, which happens to
            metrics that count, there is no spread to test by: then of an exact sign test, ``2 ** (1 - n)``.
        effect: the mean in standard deviations, times Hedges' correction for few trials, of which there is none for
            two; None where sd is 0.
        detectable: the difference that so many trials of this spread find in 8 of 10 repeats.
        wins: trials in which a is better, by the metric's direction.
        ties: trials in which both are equal.
        n: how many trials.
    """

    mean: float
    half_width: float | None
    se: float | None
    sd: float | None
    p: float | None
    effect: float | None
    detectable: float | None
    wins: int
    ties: int
    n: int


class Verdict(TypedDict):
    """What a difference shows.

    Attributes:
        verdict: `better`, `worse`, `no difference shown`, `equal` (within the margin that was asked for), or `equal in
            every pair`, where all differences are 0; None for one trial, which shows nothing.
        mean: of the differences.
        low, high: the 95% interval of the mean, not adjusted; None for one trial.
        n: how many trials.
        p: of no difference, adjusted by Holm for all verdicts that were asked for at once.
        p_equal: of a difference of the margin or more, adjusted likewise; None where no margin was given.
    """

    verdict: str | None
    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None
    p_equal: float | None


def interval(values: Sequence[float], shared: float = 0.0) -> tuple[float, float | None]:
    """Return the mean and half the width of its 95% t interval.

    The half-width is None for one value, which says nothing about spread. No value at all is a ValueError. ``shared``:
    see :func:`paired`.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    mean = fmean(values)
    if len(values) == 1:
        return mean, None
    return mean, _quantile(len(values)) * stdev(values) * math.sqrt(1 / len(values) + shared)


def _quantile(n: int) -> float:
    """Standard errors in half of an interval of ``n`` values."""
    from scipy.special import stdtrit  # imported where it is used, for it is slow

    return float(stdtrit(n - 1, 1 - LEVEL / 2))


def paired(a: Sequence[float], b: Sequence[float], metric: Figure = ACCURACY, shared: float = 0.0) -> Difference:
    """Compare ``a`` with ``b``, trial by trial.

    ``shared``: of trials on splits of the same samples, the number of test samples for each training sample; 0 where
    trials are independent. Such splits have most of their training samples in common, so that their mean varies more
    than ``sd ** 2 / n`` says: by ``sd ** 2 * (1 / n + shared)`` (Nadeau and Bengio).

    Sequences of unequal length are a ValueError: they are not paired.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, half_width = interval(differences, shared)
    n, sd = len(differences), stdev(differences) if len(differences) > 1 else None
    if sd is not None and sd <= ROUNDING * max(map(abs, (*a, *b))):  # one number, but for rounding
        sd, half_width = 0.0, 0.0
    se = None if sd is None else sd * math.sqrt(1 / n + shared)
    return {
        "mean": mean,
        "half_width": half_width,
        "se": se,
        "sd": sd,
        "p": None if se is None else _two_sided(mean, se, n),
        "effect": None if not sd else mean / sd * (1 - 3 / (4 * (n - 1) - 1)) if n > 2 else mean / sd,
        "detectable": None if sd is None else detectable(n, sd, shared=shared),
        "wins": sum(metric.gain(x, y) > 0 for x, y in zip(a, b, strict=True)),
        "ties": sum(difference == 0 for difference in differences),
        "n": n,
    }


def verdicts(pairs: Sequence[Difference], metric: Figure = ACCURACY, equal: float | None = None) -> list[Verdict]:
    """What several differences show that are asked for at once, in words; p values are adjusted for that by Holm.

    ``equal``: a margin, in the metric's unit, within which a difference does not matter. Where the interval of 90%
    lies within it (two one-sided tests), the verdict is `equal`, also for a difference that is shown not to be 0. Else
    `better` or `worse` where p is at most 0.05, and `no difference shown` where it is not: which is not the same as
    equal; `equal in every pair` where every difference is exactly 0.
    """
    ps = holm([pair["p"] for pair in pairs])
    equals = holm([None if equal is None else _within(pair, equal) for pair in pairs])
    found: list[Verdict] = []
    for pair, p, p_equal in zip(pairs, ps, equals, strict=True):
        mean, half = pair["mean"], pair["half_width"]
        word = None
        if p is not None:
            word = SAME if pair["ties"] == pair["n"] else NOT_SHOWN
            if p <= LEVEL:
                word = BETTER if (mean > 0) == metric.higher else WORSE
            if p_equal is not None and p_equal <= LEVEL:
                word = EQUAL
        ends = (None, None) if half is None else (mean - half, mean + half)
        found.append(
            {"verdict": word, "mean": mean, "low": ends[0], "high": ends[1], "n": pair["n"], "p": p, "p_equal": p_equal}
        )
    return found


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for being looked at together. Those that are None are not counted, and stay None."""
    order = sorted((p, at) for at, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, at) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[at] = largest
    return adjusted


def power(n: int, difference: float, sd: float, level: float = LEVEL) -> float:
    """The share of repeats in which a paired t test of ``n`` trials finds a true ``difference`` of this spread."""
    if n < 2:
        return 0.0
    if sd == 0:
        return float(difference != 0)
    return _power(n, abs(difference) / sd * math.sqrt(n), level)


def detectable(n: int, sd: float, share: float = POWER, shared: float = 0.0) -> float:
    """The true difference that a paired t test of ``n`` trials finds in this ``share`` of repeats; 0 where sd is.

    ``shared``: see :func:`paired`.
    """
    if n < 2:
        return math.inf
    return _detectable(n, share) * sd * math.sqrt(1 / n + shared)


@cache
def _detectable(n: int, share: float) -> float:
    """In standard errors of the mean."""
    low, high = 0.0, 1.0
    while _power(n, high, LEVEL) < share:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _power(n, middle, LEVEL) < share else (low, middle)
    return high


def _power(n: int, shift: float, level: float) -> float:
    """Of a true difference of ``shift`` standard errors.

    By averaging the normal tail over the sample variance's own quantiles: exact enough, and sound for every n.
    """
    import numpy as np
    from scipy.special import chdtri, ndtr, stdtrit

    spread = np.sqrt(chdtri(n - 1, (np.arange(8192) + 0.5) / 8192) / (n - 1)) * stdtrit(n - 1, 1 - level / 2)
    return float((ndtr(shift - spread) + ndtr(-shift - spread)).mean())


def over_samples(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], seed: int = 0) -> tuple[float, float, float]:
    """The mean difference a - b and its 95% interval over test samples (bootstrap, bias-corrected and accelerated).

    ``a``, ``b`` ``[trials, samples]``: what each trial scored on each sample, whose mean over samples is the figure.
    Trials are averaged first, samples are then drawn with replacement: the interval is of the test set's own chance,
    for these trials.
    """
    import numpy as np

    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"scores of shape {a.shape} and {b.shape} are not paired [trials, samples]")
    each = (a.astype(np.float64) - b.astype(np.float64)).mean(0)
    mean = float(each.mean())
    if len(each) < 2 or np.ptp(each) == 0:  # every draw is alike
        return mean, mean, mean
    from scipy.stats import bootstrap

    draws = max(1, 2**24 // len(each))  # resamples that are held at once
    made = bootstrap((each,), np.mean, n_resamples=RESAMPLES, batch=draws, rng=np.random.default_rng(seed))
    return mean, float(made.confidence_interval.low), float(made.confidence_interval.high)


class OverSamples(TypedDict):
    """How far a mean difference may be the test set's own chance: see :func:`over_paired_samples`.

    Attributes:
        mean: of the differences over samples and trials.
        low, high: its 95% interval over samples.
        samples: how many count.
        trials: of how many pairs.
    """

    mean: float
    low: float
    high: float
    samples: int
    trials: int


def over_paired_samples(
    pairs: Iterable[tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any] | None]],
) -> OverSamples | None:
    """The interval of :func:`over_samples` from what each sample scored in each pair of trials; None where it has none.

    ``pairs``: scores ``[samples]``, NaN for a sample that does not count; None where they were not recorded. A pair in
    which other samples count for one than for the other, or than in the pairs before, is left out.
    """
    import numpy as np

    counts: np.ndarray[Any, Any] | None = None
    mine, theirs = [], []
    for x, y in pairs:
        if x is None or y is None:
            continue
        own = ~np.isnan(x)
        if own.any() and np.array_equal(own, ~np.isnan(y)) and (counts is None or np.array_equal(own, counts)):
            counts = own
            mine.append(x[own])
            theirs.append(y[own])
    if not mine:
        return None
    mean, low, high = over_samples(np.stack(mine), np.stack(theirs))
    return {"mean": mean, "low": low, "high": high, "samples": len(mine[0]), "trials": len(mine)}


def _two_sided(mean: float, se: float, n: int) -> float:
    if se == 0:
        return 1.0 if mean == 0 else 2.0 ** (1 - n)
    from scipy.special import stdtr

    return float(2 * stdtr(n - 1, -abs(mean) / se))


def _within(pair: Difference, margin: float) -> float | None:
    """The p value of a true difference of ``margin`` or more: the larger of the two one-sided ones."""
    mean, se, n = pair["mean"], pair["se"], pair["n"]
    if se is None:
        return None
    if se == 0:
        return 2.0**-n if abs(mean) < margin else 1.0
    from scipy.special import stdtr

    return float(stdtr(n - 1, -(margin - abs(mean)) / se))
