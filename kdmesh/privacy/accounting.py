"""What Gaussian noise costs: Renyi differential privacy, its composition, and (epsilon, delta).

A function of L2 sensitivity D (how far its value moves, at most, between adjacent data sets) that is released with
independent noise N(0, sigma^2) on each coordinate has Renyi divergence a D^2 / (2 sigma^2) at each order a > 1
(Mironov, "Renyi Differential Privacy", 2017, Proposition 7 and Corollary 3). Those of several answers add up
(Proposition 1 there), also where each question depends on the answers before it. Every curve here is a straight line
through zero, so that a bound on their sum holds as a stopping rule, too: an account that refuses what would exceed its
budget keeps it whatever is asked (Feldman and Zrnic, "Individual Privacy Accounting via a Renyi Filter", 2021).

:func:`epsilon` is the conversion of Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy",
2020, Proposition 12, at the orders of the library dp-accounting 0.6.0, whose figures these are to the last digit.
:func:`exact_epsilon` needs no order: the smallest epsilon there is for Gaussian noise (Balle and Wang, "Improving the
Gaussian Mechanism for Differential Privacy", 2018, Theorem 8). Answers of sensitivities D_i and deviations sigma_i are
together as private as one with mu^2 = sum of (D_i / sigma_i)^2 (Dong, Roth and Su, "Gaussian Differential Privacy",
2019, Corollary 3.3); where questions depend on answers, too (Smith and Thakurta, "Fully Adaptive Composition for
Gaussian Differential Privacy", 2022). It is never above the other but for rounding.

Where samples take part by chance (``rate``) an answer costs less, see :mod:`kdmesh.privacy.sampled`. Its curve is no
straight line, and nothing exact is said of it: so a budget is held to with the count of such answers known before.

What the sensitivity is depends on who is protected and against what: see :mod:`kdmesh.privacy.sensitivity`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdmesh.errors import MeshError
from kdmesh.privacy import sampled

ORDERS: tuple[float, ...] = (*(1 + x / 10.0 for x in range(1, 100)), *map(float, range(11, 64)), 128, 256, 512, 1024)
"""The Renyi orders that dp-accounting 0.6.0 tries where it is told none."""
RDP, EXACT = "rdp", "exact"
_UP = 1 + 2.0**-50  # a step by which a result of searching is made safe


@dataclass(frozen=True)
class Gaussian:
    """So many answers with Gaussian noise.

    Attributes:
        sensitivity: in L2, of each answer; positive.
        sigma: the noise's standard deviation on each coordinate, in the unit of the sensitivity; positive.
        count: how many.
        rate: with what probability a sample takes part in each, drawn by itself and in secret. Below 1 the sensitivity
            is to a sample that is there or is not.
    """

    sensitivity: float
    sigma: float
    count: int = 1
    rate: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("sensitivity", self.sensitivity), ("sigma", self.sigma)):
            if not (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf):
                raise MeshError(
                    f"is {value!r}", where=name, instead="a number above 0: without noise nothing is private"
                )
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 0:
            raise MeshError(f"is {self.count!r}", where="count", instead="a whole number of answers, from 0")
        if not (isinstance(self.rate, int | float) and not isinstance(self.rate, bool) and 0 < self.rate <= 1):
            raise MeshError(f"is {self.rate!r}", where="rate", instead="a probability above 0")

    @property
    def multiplier(self) -> float:
        """The noise's deviation in units of the sensitivity, which alone decides."""
        return self.sigma / self.sensitivity


def rdp(answers: Iterable[Gaussian], orders: Sequence[float] = ORDERS) -> list[float]:
    """The Renyi divergence of all answers together, at each order. However they are sorted it is the same number."""
    counts: Counter[tuple[float, float]] = Counter()
    for one in answers:
        counts[one.multiplier, one.rate] += one.count
    known = tuple(orders)
    each = [(count, sampled.divergences(rate, sigma, known)) for (sigma, rate), count in counts.items() if count]
    return [math.fsum(count * curve[place] for count, curve in each) for place in range(len(known))]


def epsilon(curve: Sequence[float], delta: float, orders: Sequence[float] = ORDERS) -> float:
    """The smallest epsilon that a curve of Renyi divergences gives at a delta, over its orders.

    Beside Proposition 12 of Canonne, Kamath and Steinke, an order at which delta^2 > 1 - exp(-divergence) needs no
    epsilon: by the inequality of Bretagnolle and Huber, as the total variation is then below delta.
    """
    _refuse_delta(delta)
    if not any(curve):
        return 0.0
    return max(0.0, min(_at(order, divergence, delta) for order, divergence in zip(orders, curve, strict=True)))


def _at(order: float, divergence: float, delta: float) -> float:
    if delta**2 + math.expm1(-divergence) > 0:
        return 0.0
    if delta == 0:
        return math.inf
    return divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def mu(answers: Iterable[Gaussian]) -> float:
    """The mu of all answers together: they are as private as one with sensitivity mu and deviation 1.

    That samples take part by chance is left out: with it they are more private than that.
    """
    counts: Counter[float] = Counter()
    for one in answers:
        counts[one.multiplier] += one.count
    return math.sqrt(math.fsum(count / sigma**2 for sigma, count in counts.items()))


def exact_delta(mu: float, epsilon: float) -> float:
    """The smallest delta of Gaussian noise at an epsilon: Phi(mu/2 - eps/mu) - exp(eps) Phi(-mu/2 - eps/mu)."""
    from scipy.special import log_ndtr

    if mu == 0:
        return 0.0
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return math.exp(first) * -math.expm1(min(0.0, second - first))


def exact_epsilon(mu: float, delta: float) -> float:
    """The smallest epsilon of Gaussian noise at a delta, from above."""
    _refuse_delta(delta)
    if mu == 0 or exact_delta(mu, 0.0) <= delta:
        return 0.0
    if delta == 0:
        return math.inf
    from scipy.optimize import brentq

    most = mu * (mu / 2 + math.sqrt(2 * math.log(1 / delta)))  # by the tail bound of a normal variable
    found = brentq(lambda one: exact_delta(mu, one) - delta, 0.0, most, xtol=1e-300, rtol=1e-15)
    while exact_delta(mu, found) > delta:
        found *= _UP
    return float(found)


def epsilons(answers: Sequence[Gaussian], delta: float) -> dict[str, float]:
    """Epsilon at a delta by both ways: ``rdp``, which budgets are held to, and ``exact``, unless samples take part by
    chance.
    """
    found = {RDP: epsilon(rdp(answers), delta)}
    return found if any(one.rate < 1 for one in answers) else {**found, EXACT: exact_epsilon(mu(answers), delta)}


def calibrated(epsilon: float, delta: float, count: int, sensitivity: float, by: str = RDP, rate: float = 1.0) -> float:
    """The smallest sigma with which so many answers of a sensitivity keep to (epsilon, delta).

    ``by``: which account they are to keep to, ``rdp`` or ``exact``. No sigma does so with an epsilon or delta of 0.
    ``rate`` below 1: to a millionth, by a search.
    """
    if not (0 < epsilon < math.inf and 0 < delta < 1):
        what = f"is ({epsilon:g}, {delta:g})"
        raise MeshError(what, where="budget", instead="an epsilon above 0 and a delta between 0 and 1")
    if Gaussian(sensitivity, 1.0, count).count == 0:
        raise MeshError("is 0", where="count", instead="the number of answers")
    if rate < 1:
        return _sampled_sigma(epsilon, delta, count, sensitivity, rate)
    found = sensitivity * math.sqrt(count) / (_exact_mu(epsilon, delta) if by == EXACT else _rdp_mu(epsilon, delta))
    while epsilons([Gaussian(sensitivity, found, count)], delta)[by] > epsilon:
        found *= _UP
    return found


def _sampled_sigma(most: float, delta: float, count: int, sensitivity: float, rate: float) -> float:
    """The same where samples take part by chance, from above: more noise never costs more."""

    def fits(sigma: float) -> bool:
        return epsilon(rdp([Gaussian(sensitivity, sigma, count, rate)]), delta) <= most

    high = sensitivity
    while not fits(high):
        high *= 2
    low = high / 2
    while fits(low):
        low, high = low / 2, low
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _exact_mu(epsilon: float, delta: float) -> float:
    """The mu whose exact delta at an epsilon is as given: Algorithm 1 of Balle and Wang, by a search for a root."""
    from scipy.optimize import brentq

    low, high = 0.0, 1.0
    while exact_delta(high, epsilon) < delta:
        low, high = high, 2 * high
    return float(brentq(lambda one: exact_delta(one, epsilon) - delta, low, high, xtol=1e-300, rtol=1e-15))


def _rdp_mu(epsilon: float, delta: float) -> float:
    """The same of :func:`epsilon`: at each order a bound on a mu^2 / 2, of which the widest is taken."""
    slopes = [-math.log1p(-(delta**2)) / order for order in ORDERS]
    slopes += [(epsilon - math.log1p(-1 / a) + math.log(delta * a) / (a - 1)) / a for a in ORDERS]
    return math.sqrt(2 * max(slopes))


def _refuse_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise MeshError(f"is {delta!r}", where="delta", instead="a number from 0, below 1: 1e-5, say")
