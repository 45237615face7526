"""Rows of which the source is confident: what is easy comes first.

A curriculum: Bengio, Louradour, Collobert and Weston, "Curriculum Learning", 2009, with the confidence of who teaches
as the measure of what is easy.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdmesh.builtin.gates.offers import ConfidentConfig
from kdmesh.contracts.gate import Gate
from kdmesh.spec.settings import checked_by


@checked_by(ConfidentConfig)
class Confident(Gate):
    """``f_i = 1`` if ``confidence_i >= c(e)``, else 0, in epoch e counted from 0, with

    ``c(e) = start + (end - start) min(e / epochs, 1)``.

    The factors are not normalised: the loss is the sum over the rows that count, over all B of the batch.
    """

    def __init__(self, start: float = 0.9, end: float = 0.0, epochs: int = 10) -> None:
        super().__init__()
        self.start, self.end, self.epochs = start, end, epochs

    def forward(self, *, confidence: Tensor, epoch: int, **facts: Any) -> Tensor:
        """Return factors ``[B]`` of 0 and 1."""
        least = self.start + (self.end - self.start) * min(epoch / self.epochs, 1.0)
        return (confidence >= least).to(confidence.dtype)
