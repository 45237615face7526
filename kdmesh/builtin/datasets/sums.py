"""Sums to be done by a language model: `7+12=` is answered by `19`. Made here, nothing is collected or fetched."""

from __future__ import annotations

import torch

from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts

TEST = 0.2
SEED = 0


def sums(below: int = 20, explained: bool = False) -> Table:
    """Return the sum of every pair of whole numbers below ``below``, a prompt and its answer, in a seeded order.

    With ``explained`` an answer says before itself what the last digits add up to: `7+15=` is answered by `12>22`.
    A fifth is the official test split: pairs that stand in no training sample, whose order may.
    """
    pairs = [(a, b) for a in range(below) for b in range(below)]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(SEED)).tolist()
    said = [f"{a % 10 + b % 10}>" if explained else "" for a, b in pairs]
    samples = [
        Sample(said[at] + str(sum(pairs[at])), prompt="{}+{}=".format(*pairs[at]), at="{}+{}".format(*pairs[at]))
        for at in order
    ]
    held = max(1, round(TEST * len(samples)))
    train, test = torch.arange(len(samples)).split([len(samples) - held, held])
    return Table(
        Texts(samples),
        None,
        classes=0,
        official={"train": train, "test": test},
        licence="none: computed",
        source=f"the sums of all pairs of whole numbers below {below}",
    )
