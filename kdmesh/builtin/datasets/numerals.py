"""Whole numbers in English words, to be told apart: `forty-two` is even. Made here, nothing is collected or fetched."""

from __future__ import annotations

import torch

from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts

TEST = 0.2
SEED = 0
CLASSES = ["even", "odd"]
ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def numerals(below: int = 1000) -> Table:
    """Return every whole number below ``below``, which is at most 1,000, in words, in a seeded order; even or odd.

    A fifth is the official test split.
    """
    order = torch.randperm(below, generator=torch.Generator().manual_seed(SEED))
    samples = [Sample(spelled(number), at=str(number)) for number in order.tolist()]
    held = max(1, round(TEST * below))
    train, test = torch.arange(below).split([below - held, held])
    return Table(
        Texts(samples),
        order % 2,
        classes=len(CLASSES),
        official={"train": train, "test": test},
        labels=list(CLASSES),
        licence="none: computed",
        source=f"the whole numbers below {below}",
    )


def spelled(number: int) -> str:
    """A whole number from 0 to 999 in words: `three hundred forty-two`."""
    hundreds, rest = divmod(number, 100)
    tens, ones = divmod(rest, 10)
    if rest < len(ONES):
        below = ONES[rest]
    else:
        below = TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")
    if not hundreds:
        return below
    return f"{ONES[hundreds]} hundred" + (f" {below}" if rest else "")
