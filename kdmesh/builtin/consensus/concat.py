"""Sources that know different classes, side by side: the cheap way to merge label spaces.

No paper of its own; the baseline that Vongkulbhisal, Vinayavekhin and Visentini-Scarzanella, "Unifying Heterogeneous
Classifiers with Distillation", 2019, improve on where label sets overlap (see `uhc`).
"""

from __future__ import annotations

from torch import Tensor

from kdmesh.builtin.consensus._partial import joined, known
from kdmesh.contracts.rule import Rule


class Concat(Rule):
    """A class's logit is the mean over the present sources that know it; ``softmax(. / T)`` of that in space `probs`.

    With disjoint label sets this is the softmax of the concatenated logits. It takes the logits of different sources
    to be on one scale: adding a constant to all of a source's logits, which changes nothing that the source says, moves
    mass to or from its classes. A class that no present source knows gets the lowest logit of its row. The order of
    sources changes rounding only.
    """

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return distributions or logits ``[B, C]``."""
        merged = joined(logits, known(logits, present))
        return (merged / self.temperature).softmax(-1) if self.space == "probs" else merged
