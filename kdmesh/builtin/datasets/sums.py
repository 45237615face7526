"""Sums to be done by a language model: `7+12=` is answered by `19`. Made here, nothing is collected or fetched."""

from __future__ import annotations

from dataclasses import replace

import torch

from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts

TEST = 0.2
SEED = 0


def sums(below: int = 20, explained: bool = False, wrong: bool = False, swapped: float = 0.0) -> Table:
    """Return the sum of every pair of whole numbers below ``below``, a prompt and its answer, in a seeded order.

    With ``explained`` an answer says before itself what the last digits add up to: `7+15=` is answered by `12>22`.
    A fifth is the official test split: pairs that stand in no training sample, whose order may. ``wrong``: beside each
    answer stands one that is off by 1 to 9, and rejected; ``swapped``: the share of training samples in which these two
    are the wrong way round.
    """
    pairs = [(a, b) for a in range(below) for b in range(below)]
    drawn = torch.Generator().manual_seed(SEED)
    order = torch.randperm(len(pairs), generator=drawn).tolist()
    said = [f"{a % 10 + b % 10}>" if explained else "" for a, b in pairs]
    samples = [
        Sample(said[at] + str(sum(pairs[at])), prompt="{}+{}=".format(*pairs[at]), at="{}+{}".format(*pairs[at]))
        for at in order
    ]
    held = max(1, round(TEST * len(samples)))
    if wrong:
        samples = _with_wrong(samples, drawn)
        known = len(samples) - held
        for at in torch.randperm(known, generator=drawn)[: round(swapped * known)].tolist():
            samples[at] = replace(samples[at], text=str(samples[at].rejected), rejected=samples[at].text)
    train, test = torch.arange(len(samples)).split([len(samples) - held, held])
    return Table(
        Texts(samples),
        None,
        classes=0,
        official={"train": train, "test": test},
        licence="none: computed",
        source=f"the sums of all pairs of whole numbers below {below}",
    )


def _with_wrong(samples: list[Sample], drawn: torch.Generator) -> list[Sample]:
    """Each with an answer that is more or less by 1 to 9, and not below 0, as the rejected one."""
    off = (1 + torch.randint(9, (len(samples),), generator=drawn)).tolist()
    less = torch.randint(2, (len(samples),), generator=drawn).tolist()
    found = []
    for sample, by, below in zip(samples, off, less, strict=True):
        right = int(sample.text)
        found.append(replace(sample, rejected=str(right - by if below and right >= by else right + by)))
    return found
