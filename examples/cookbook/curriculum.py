"""A curriculum: the rows that the teacher is surest of come first, then more of them, in the end all.

Platanios, Stretcu, Neubig, Poczos and Mitchell, "Competence-based Curriculum Learning for Neural Machine Translation",
NAACL 2019, arXiv 1903.09848: the share of samples that a learner may see grows with the root of time. There samples are
ranked once, over the data, by length or by how rare their words are; here within each batch, by the teacher's
confidence.

The gate has one fact of the batch, `confidence`, and one of the training, `step`, so it works for any source.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from pydantic import Field

import kdmesh
from kdmesh.offers import Config, GateOffer


class Settings(Config):
    """Settings of the gate."""

    start: float = Field(0.25, gt=0, le=1, description="share of each batch's rows that count in the first step")
    steps: int = Field(100, ge=1, description="steps after which all rows count")


def competence(start: float, steps: int) -> Any:
    """The gate; torch is imported here, not where the offers are read."""
    import torch
    from torch import Tensor

    from kdmesh.gates import Gate

    class Competence(Gate):
        """``f_i = B / k`` for the ``k = max(1, int(c B))`` rows of largest confidence, else 0.

        ``c(t) = min(1, sqrt(t (1 - start^2) / steps + start^2))`` in step t, from 0.
        """

        def forward(self, *, confidence: Tensor, step: int) -> Tensor:
            """``confidence [B]``: the largest probability of each row of what the flow carries."""
            share = min(1.0, sqrt(step * (1 - start**2) / steps + start**2))
            kept = max(1, int(share * len(confidence)))
            factors = torch.zeros_like(confidence)
            factors[confidence.argsort(descending=True, stable=True)[:kept]] = len(confidence) / kept
            return factors

    return Competence()


GATE = GateOffer(
    "competence",
    "curriculum:competence",
    Settings,
    "the rows that the source is surest of, all of them in the end",
    "Platanios et al., Competence-based Curriculum Learning for Neural Machine Translation, 2019",
    needs=("confidence", "step"),
    rows=True,
    answers=("classes",),
)


@kdmesh.hookimpl
def kdmesh_gates() -> list[GateOffer]:
    """Offer the gate."""
    return [GATE]
