"""Specialists: a column of the data says which source speaks about a sample.

No paper of its own: the gate of Jacobs, Jordan, Nowlan and Hinton, "Adaptive Mixtures of Local Experts", 1991, but hard
and given instead of learned.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import present_of, uniform
from kdmesh.builtin.consensus.offers import RouteConfig
from kdmesh.contracts.rule import Rule, weighted_sum
from kdmesh.errors import MeshError, nearest
from kdmesh.spec.settings import checked_by

EVERYONE = "mean"


@checked_by(RouteConfig)
class Route(Rule):
    """Weight 1 for the source that ``to`` names for the sample's value of ``column``.

    ``else_`` speaks about samples whose value is not in ``to``, or that have none (-1), and where the named source is
    absent: a source, or `mean` for all alike. Without it such a value is refused at the start. Where nobody named is
    present, all who are speak alike. Weights carry no gradient, the chosen values do.
    """

    def __init__(self, column: str, to: dict[str, str], else_: str | None = None) -> None:
        super().__init__()
        self.column, self.routes, self.other = column, to, else_
        self.shares = torch.empty(0, 0)  # of each source, by value; the last row is `else`

    def setup(
        self, sources: tuple[str, ...], classes: int, inputs: tuple[torch.Size, ...], *, columns: Sequence[str] = ()
    ) -> None:
        """Draw the routes for the column's values; MeshError for a value without one, or one that does not occur."""
        for value in self.routes:
            if value not in columns:
                raise MeshError(
                    f"column {self.column!r} holds no {value!r}",
                    where=f"to.{value}",
                    instead=nearest(value, columns, f"values of {self.column!r}"),
                )
        lost = [value for value in columns if value not in self.routes]
        if lost and self.other is None:
            raise MeshError(
                f"no source for {self.column} {', '.join(map(repr, lost[:5]))}{' ...' if len(lost) > 5 else ''}",
                where="to",
                instead=f"`{lost[0]}: {sources[0]}`, or `else: {EVERYONE}`",
            )
        other = torch.full((len(sources),), 1.0 / len(sources))
        if self.other in sources:
            other = one_hot(sources, self.other)
        rows = [one_hot(sources, self.routes[value]) if value in self.routes else other for value in columns]
        self.shares = torch.stack([*rows, other])

    def forward(
        self,
        values: Tensor,
        *,
        logits: Tensor,
        labels: Tensor | None = None,
        present: Tensor | None = None,
        column: Tensor | None = None,
    ) -> Tensor:
        """The values of the routed sources ``[B, C]``; ``column [B]``: the number of each sample's value."""
        return weighted_sum(values, self.weights(logits, labels=labels, present=present, column=column))

    def weights(
        self,
        logits: Tensor,
        *,
        labels: Tensor | None = None,
        present: Tensor | None = None,
        column: Tensor | None = None,
    ) -> Tensor:
        """Weights ``[M, B]``."""
        if column is None:
            raise MeshError(
                f"this stream has no column {self.column!r}", where="column", instead="a column of the data"
            )
        table = self.shares.to(logits.device, logits.dtype)
        chosen = uniform(logits, present)
        for shares in (table[-1].expand(len(column), -1), table[column]):  # what is named first has the last word
            mine = shares.T * present_of(logits, present)
            total = mine.sum(0)
            chosen = torch.where(total > 0, mine / torch.where(total > 0, total, 1.0), chosen)
        return chosen


def one_hot(sources: Sequence[str], name: str) -> Tensor:
    """1 for the source of a name."""
    return torch.tensor([float(source == name) for source in sources])
