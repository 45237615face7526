"""What language models say of the tokens that stand there, and of the answers of a pair."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdmesh.builtin.objectives._numerics import floored
from kdmesh.builtin.objectives._spans import compared, picked
from kdmesh.signals.lazy import Lazy


def token_log_probs(values: Tensor | Lazy, tokens: Tensor, form: str = "logits", rows: Tensor | None = None) -> Tensor:
    """The log-probability of a token in each row, ``[n]``, at least float32, of logits or of probabilities.

    ``values [N, V]``; ``tokens [n]`` int64, of the rows at ``rows [n]`` int64, None: of all. Large signals are looked
    at piece by piece, and the backward pass makes each piece anew. A token of probability 0 has the logarithm of the
    smallest normal number, and gets no gradient.
    """
    every = torch.arange(len(values), device=values.device) if rows is None else rows

    def said(pairs: Tensor) -> Tensor:
        made = picked(values, every[pairs])
        log_p = made.log_softmax(-1) if form == "logits" else made.clamp_min(torch.finfo(made.dtype).tiny).log()
        return floored(log_p.gather(-1, tokens[pairs, None])[:, 0])

    return compared(said, len(every), values.shape[1], values.device)


class Answers(NamedTuple):
    """The rows that count of a batch of pairs: ``rows [n]``, ``tokens [n]``, and ``place [n]``, the number of each
    one's answer: ``2 p`` for the chosen one of pair p, ``2 p + 1`` for the rejected one.

    ``pairs``: how many there are in all; ``factors``: what each counts, ``[pairs]``, None: all 1; 0 of a pair of which
    no row is among ``rows``.
    """

    rows: Tensor
    tokens: Tensor
    place: Tensor
    pairs: int
    factors: Tensor | None

    @classmethod
    def of(cls, pairs: Tensor, weights: Tensor | None) -> Answers:
        """Of what an objective is given: ``pairs [N, 3]``, and factors of rows; a pair counts as its least row does."""
        found, number = pairs[:, 0].unique(return_inverse=True)
        place, rows = 2 * number + pairs[:, 1], torch.arange(len(pairs), device=pairs.device)
        if weights is None:
            return cls(rows, pairs[:, 2], place, len(found), None)
        factors = weights.new_ones(len(found)).scatter_reduce(0, number, weights, "amin", include_self=False)
        rows = (factors[number] != 0).nonzero().squeeze(1)
        return cls(rows, pairs[rows, 2], place[rows], len(found), factors)

    def log_probs(self, values: Tensor | Lazy, form: str = "logits", per_token: bool = False) -> Tensor:
        """The log-probability of each answer, ``[pairs, 2]``, chosen and rejected: the sum over its tokens.

        ``per_token``: their mean in its place. Of a pair that does not count it is 0.
        """
        said = token_log_probs(values, self.tokens, form, self.rows)
        sums = said.new_zeros(2 * self.pairs).index_add(0, self.place, said)
        if per_token:
            sums = sums / self.place.bincount(minlength=2 * self.pairs).clamp_min(1)
        return sums.view(self.pairs, 2)

    def mean(self, losses: Tensor) -> Tensor:
        """``sum_p w_p l_p / P`` of losses ``[P]`` of the pairs."""
        if self.factors is None:
            return losses.sum() / max(self.pairs, 1)
        return torch.where(self.factors != 0, losses * self.factors.to(losses.dtype), 0.0).sum() / max(self.pairs, 1)
