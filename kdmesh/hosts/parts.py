"""The loss of a flow with `part`: over the tokens of an answer's reasoning alone, or of what follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.hosts.terms import Term
from kdmesh.signals.wide import wide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdmesh.hosts.step import StepContext

MOST = 100_000  # texts whose cut is remembered


class PartTerm(Term):
    """``weight * mean_{i in part} w_i l_i``; 0 in a batch without a token of that part."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        host = self.inputs.host
        marks = host.plan.spec.text.reasoning
        assert marks is not None  # the plan refuses others
        self._marks = marks[0], marks[1]
        self._tokenizer = host.reading.encoder(self.edge.target).tokenizer
        self._known: dict[tuple[int, ...], int] = {}

    def compute(
        self, context: StepContext, own: Any, target: Any, form: str, weights: Tensor | None, given: dict[str, Any]
    ) -> Tensor:
        """The objective's loss, with factors that leave out the other part."""
        batch = self.inputs.batch(context, self.inputs.shard(self.edge.target, self.edge.stream))
        assert batch is not None
        texts = batch.x.targets.split(batch.x.counts.tolist())
        first = torch.cat([self._reasoning(text.tolist()) for text in texts]).to(batch.x.targets.device)
        inside = first if self.edge.part == "reasoning" else ~first
        return super().compute(context, own, target, form, alone(inside, weights), given)

    def _reasoning(self, ids: list[int]) -> Tensor:
        """Which tokens of an answer are reasoning, ``[n]`` bool."""
        key = tuple(ids)
        if key not in self._known:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[key] = cut(self._tokenizer, ids, self._marks)
        return torch.arange(len(ids)) < self._known[key]


def alone(inside: Tensor, weights: Tensor | None) -> Tensor:
    """Factors ``[B]`` by which ``sum_i factor_i l_i / B`` is the mean of ``w_i l_i`` over the rows that are ``inside``.

    Rows of weight 0 are not counted; where there are no others all factors are 0.
    """
    counted = inside if weights is None else inside & (weights != 0)
    factors = torch.where(counted, len(inside) / counted.sum().clamp_min(1).to(wide(inside.device)), 0.0)
    factors = factors.to(torch.float32)
    return factors if weights is None else factors * weights.to(torch.float32)


def cut(tokenizer: Any, ids: Sequence[int], marks: tuple[str, str]) -> int:
    """How many tokens of an answer are its reasoning: to that which completes the last end mark; all if it never ends.

    0 for an answer without either mark. Special tokens, as that which ends a text, are no part of its words.
    """
    begin, end = marks
    hidden = set(tokenizer.all_special_ids)

    def said(count: int) -> str:
        return str(tokenizer.decode([one for one in ids[:count] if one not in hidden]))

    def ends(count: int) -> int:
        return said(count).count(end)

    every = ends(len(ids))
    if not every:
        started = said(len(ids)).lstrip().startswith(begin) if begin else False
        return len(ids) if started else 0
    low, high = 1, len(ids)  # the first prefix that has all of them
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if ends(middle) == every else (middle + 1, high)
    return low
