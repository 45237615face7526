"""A lower bound on epsilon from one training run: Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training
Run", 2023.

Each of m canaries is put in by the toss of a coin. Of r of them an attacker, who sees the model, guesses whether they
were in, and is right v times. If training is (epsilon, delta)-private for each canary, so many right guesses are
unlikely (Theorem 5.2): :func:`p_value` bounds how unlikely, and :func:`epsilon` is the largest that is refuted.
"""

from __future__ import annotations

import math

from kdmesh.errors import MeshError

CONFIDENCE = 0.95
STEPS = 60
"""Halvings of the interval in which epsilon is looked for."""


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """A bound on the probability of at least so many right guesses of an (epsilon, delta)-private algorithm."""
    import numpy as np
    from scipy.stats import binom

    if not 0 <= right <= guesses <= canaries or guesses < 1:
        what = f"{right} right of {guesses} guesses about {canaries} canaries"
        raise MeshError(what, where="guesses", instead="right guesses among guesses among canaries, one at least")
    chance = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, guesses, chance))
    if delta == 0 or right == 0:
        return min(1.0, tail)
    steps = np.arange(1, right + 1)
    below = binom.pmf(right - steps, guesses, chance).cumsum()  # P(v > count >= v - i)
    return min(1.0, tail + 2 * canaries * delta * float((below / steps).max()))


def epsilon(canaries: int, guesses: int, right: int, delta: float = 0.0) -> float:
    """The largest epsilon that so many right guesses refute, at 95%; 0 where they refute none."""
    level = 1 - CONFIDENCE
    if p_value(canaries, guesses, right, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, 1.0
    while p_value(canaries, guesses, right, high, delta) <= level:
        low, high = high, 2 * high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(canaries, guesses, right, middle, delta) <= level else (low, middle)
    return low


def power(canaries: int, delta: float = 0.0) -> float:
    """The largest epsilon that so many canaries can refute: where each is guessed, and right."""
    return epsilon(canaries, canaries, canaries, delta)
