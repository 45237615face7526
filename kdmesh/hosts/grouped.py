"""The loss of a flow with `denominator: {group: COLUMN}`: each value of a column has an average of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.hosts import side_inputs
from kdmesh.hosts.terms import Term
from kdmesh.signals.wide import wide

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.hosts.step import StepContext


class GroupedTerm(Term):
    """``weight * (1 / G) sum_g mean_{i in g} w_i l_i`` over the G groups that a batch has rows of."""

    def compute(
        self, context: StepContext, own: Any, target: Any, form: str, weights: Tensor | None, given: dict[str, Any]
    ) -> Tensor:
        """The objective's loss, its rows weighted by their groups' sizes."""
        shard = self.inputs.shard(self.edge.target, self.edge.stream)
        batch = self.inputs.batch(context, shard)
        assert batch is not None
        numbers = side_inputs.numbers_at(self.inputs.host, self.edge.group, shard, batch.at)
        return super().compute(context, own, target, form, even(numbers, weights), given)


def even(numbers: Tensor, weights: Tensor | None) -> Tensor:
    """Factors ``[B]`` by which ``sum_i factor_i l_i / B`` is the mean over groups of each one's mean ``w_i l_i``.

    ``numbers [B]``: the group of each row, -1 for those without one, which are a group too. Rows of weight 0 are not
    counted; where there are no others all factors are 0.
    """
    counted = torch.ones_like(numbers, dtype=torch.bool) if weights is None else weights != 0
    own = numbers + 1
    sizes = torch.bincount(own[counted], minlength=int(own.max()) + 1 if len(own) else 1)
    factors = len(own) / ((sizes > 0).sum() * sizes[own]).to(wide(own.device))
    factors = torch.where(counted, factors, 0.0).to(torch.float32)
    return factors if weights is None else factors * weights.to(torch.float32)
