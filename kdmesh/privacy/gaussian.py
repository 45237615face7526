"""Gaussian noise, rounded to a grid, made exactly of random bits.

Noise in floating point tells on what it hides. Not every number can be a sum `value + noise`, and which ones can
depends on the value: Mironov, "On Significance of the Least Significant Bits for Differential Privacy", 2012, reads
data off the low bits of a textbook sampler. Here values and noise are whole multiples of a grid that depends on sigma
alone, a power of two, so that the same sums can be whatever is hidden, and integers are added.

The noise is not the discrete Gaussian of Canonne, Kamath and Steinke, 2020, but a normal variable that is *rounded* to
the grid. Where the value lies on the grid, rounding the noise is rounding the sum: what is released is made of the sum
with continuous noise by a step that looks at nothing else, and so whatever holds of that holds here, to the letter: its
Renyi divergences, its exact epsilon, and the bounds of PATE. (The discrete one has these divergences, but neither the
exact epsilon nor the tails that PATE's bound wants.)

It is exact, too: each sample is a function of as many independent random bits as it needs, and of no rounding of the
machine. A sample's sign is a bit, and the following ones are the binary digits of V, uniform on (0, 1): with z such
that erfc(z / sqrt 2) = V its size is z sigma. A first look in floating point finds which multiples that can be, with a
generous allowance for the error of the library's function. Nearly always it is one; else V gets more digits, and
rational bounds on erfc decide. So equal bits give equal noise on every machine, with any version of any library.

What remains: how long this takes depends on the bits, as it does in the discrete samplers. Who can time single answers
from outside should not be let to; see Jin, McMurtry, Rubinstein and Ohrimenko, "Are We There Yet? Timing and
Floating-Point Attacks on Differential Privacy Systems", 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    import numpy as np

FINE = 16  # the grid is at most sigma / 2 ** FINE, but never coarser than 1
SMALLEST, LARGEST = 2.0**-20, 2.0**30  # of sigma, for sums to be exact in 64 bits
WORD = 64  # random bits that a sample begins with, and more that it is given at a time
_SLACK = 2.0**-32  # relative: what an inverse of erfc is allowed to be wrong by, a million times what it is

More = Callable[[int, int], int]
"""Further random words of a sample: of its number, and of how many times it has asked, from 1."""


class Bounds(NamedTuple):
    """Two integers that a number, times a power of two, lies between."""

    low: int
    high: int


@dataclass(frozen=True)
class Noise:
    """Noise of a standard deviation, in whole steps of its grid.

    It is made here alone: a mechanism takes no other, so that none is forgotten.
    """

    steps: np.ndarray
    sigma: float


def digits(sigma: float) -> int:
    """The grid for a sigma is 2 ** -digits: how many binary digits after the point values and noise have."""
    if not SMALLEST <= sigma <= LARGEST:
        raise MeshError(f"is {sigma:g}", where="sigma", instead=f"a number from {SMALLEST:.2g} to {LARGEST:.2g}")
    return max(0, FINE + 1 - math.frexp(sigma)[1])


def noise(words: np.ndarray, more: More, sigma: float) -> Noise:
    """Noise of the shape of ``words``, random ones of 64 bits. ``more``: further ones of a sample that needs them."""
    return Noise(rounded(words, more, Fraction(sigma) * 2 ** digits(sigma)), sigma)


def rounded(words: np.ndarray, more: More, scale: Fraction) -> np.ndarray:
    """Normal variables of deviation ``scale``, rounded to whole numbers: a function of the words, exactly."""
    import numpy as np
    from scipy.special import ndtri

    flat = np.ascontiguousarray(words, dtype=np.uint64).reshape(-1)
    tail = flat & np.uint64(2 ** (WORD - 1) - 1)
    far = -ndtri(tail / 2.0**WORD)  # V lies between tail and tail + 1 in units of 2 ** -63, and this is of V / 2
    near = -ndtri((tail + np.uint64(1)) / 2.0**WORD)
    with np.errstate(invalid="ignore"):
        least = np.floor((near - _SLACK * (1 + near)) * float(scale) + 0.5).clip(min=0)
        most = np.floor((far + _SLACK * (1 + far)) * float(scale) + 0.5)
    size = np.zeros(len(flat), dtype=np.int64)
    sure = least == most
    size[sure] = least[sure].astype(np.int64)
    for number in np.flatnonzero(~sure):
        size[number] = exactly(int(tail[number]), partial(more, int(number)), scale)
    return np.where(flat >> np.uint64(WORD - 1), -size, size).reshape(np.shape(words))


def exactly(tail: int, more: Callable[[int], int], scale: Fraction) -> int:
    """The whole number nearest to z * scale, where erfc(z / sqrt 2) has the binary digits of ``tail``, 63, and more."""
    known, block = WORD - 1, 0
    while True:
        block += 1
        tail, known = tail << WORD | more(block), known + WORD
        if (found := _settled(tail, known, scale)) is not None:
            return found


def _settled(tail: int, known: int, scale: Fraction) -> int | None:
    """The number, if so many known digits of V leave one only: by bisection between 0 and what is surely too large."""
    if tail == 0:
        return None
    low, high = 0, math.ceil(scale * (math.isqrt(2 * known) + 1)) + 1  # erfc(z / sqrt 2) < exp(-z^2 / 2) < 2^-known
    while high - low > 1:
        middle = (low + high) // 2
        reaches = beyond(tail, known, (middle - Fraction(1, 2)) / scale)
        if reaches is None:
            return None
        low, high = (middle, high) if reaches else (low, middle)
    return low


def beyond(tail: int, known: int, bound: Fraction) -> bool | None:
    """Whether z >= bound > 0 for each z with erfc(z / sqrt 2) in [tail, tail + 1] / 2^known; None if only for some.

    erf(b / sqrt 2) = sqrt(2 / pi) exp(-b^2 / 2) S with S = b + b^3 / 3 + b^5 / (3 5) + ..., of positive terms
    (Abramowitz and Stegun, 26.2.11). So z >= b where (1 - V)^2 pi exp(b^2) >= 2 S^2, and each factor has rational
    bounds.
    """
    precise = known + 96
    square = bound * bound
    power = _series(Bounds(1 << precise, 1 << precise), square, lambda number: number)
    first = (bound.numerator << precise) // bound.denominator
    total = _series(Bounds(first, first + 1), square, lambda number: 2 * number + 1)
    pi = _pi(precise)
    low, high = (1 << known) - tail - 1, (1 << known) - tail
    if low * low * pi.low * power.low >= 2 * total.high**2 << 2 * known:
        return True
    if high * high * pi.high * power.high < 2 * total.low**2 << 2 * known:
        return False
    return None


def _series(first: Bounds, ratio: Fraction, divisor: Callable[[int], int]) -> Bounds:
    """The sum of a series of positive terms, of which the n-th is the one before it times ratio / divisor(n)."""
    (low, high), number = first, 0
    term = first
    while term.high > 1 or 2 * ratio > divisor(number + 1):  # after that each is at most half of the one before it
        number += 1
        below = ratio.denominator * divisor(number)
        term = Bounds(term.low * ratio.numerator // below, -(-term.high * ratio.numerator // below))
        low, high = low + term.low, high + term.high
    return Bounds(low, high + 1)


@cache
def _pi(precise: int) -> Bounds:
    """Pi times 2 ** precise, by Machin's formula: 16 arctan(1/5) - 4 arctan(1/239)."""
    extra = 32
    one = 1 << precise + extra

    def arctan(inverse: int) -> tuple[int, int]:
        """Of 1 / inverse, and by how much it is wrong at most: each term by 1, and what is left out by 1."""
        power, total, number = one // inverse, 0, 0
        while power:
            total += (power // (2 * number + 1)) * (-1 if number % 2 else 1)
            power //= inverse * inverse
            number += 1
        return total, 2 * number + 2

    (five, wrong), (other, also) = arctan(5), arctan(239)
    middle, error = 16 * five - 4 * other, 16 * wrong + 4 * also
    return Bounds((middle - error) >> extra, ((middle + error) >> extra) + 1)
