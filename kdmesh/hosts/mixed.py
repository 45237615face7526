"""The loss of a flow into an agent whose batches are mixed: of what is about samples, that of both in each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from kdmesh.hosts.terms import Term
from kdmesh.signals.lazy import taken

if TYPE_CHECKING:
    from kdmesh.hosts.step import StepContext


class MixedTerm(Term):
    """``share * l(own, target) + (1 - share) * l(own, target[partner])``; a share for each row weighs the rows.

    So mixed labels are two cross-entropies, which is the cross-entropy to the mixed distribution, as that is linear in
    its target. ``of_samples``: whether the target is about single samples; else labels beside it alone are.
    """

    def __init__(self, *args: Any, of_samples: bool) -> None:
        super().__init__(*args)
        self._of_samples = of_samples

    def compute(
        self, context: StepContext, own: Any, target: Any, form: str, weights: Tensor | None, given: dict[str, Any]
    ) -> Tensor:
        """The objective's losses of the samples and of their partners, by their shares."""
        partner, share = context.mixes[self.edge.target, self.edge.stream]
        beside = dict(given)
        if given.get("labels") is not None:
            beside["labels"] = given["labels"][partner]
        theirs = taken(target, partner) if self._of_samples else target
        others = weights[partner] if weights is not None and self._of_samples else weights
        if isinstance(share, float):
            first = super().compute(context, own, target, form, weights, given)
            if share == 1:
                return first
            return share * first + (1 - share) * super().compute(context, own, theirs, form, others, beside)
        shares = share if weights is None else share * weights.to(share.dtype)
        rests = 1 - share if others is None else (1 - share) * others.to(share.dtype)
        first = super().compute(context, own, target, form, shares, given)
        return first + super().compute(context, own, theirs, form, rests, beside)
