"""Ranks of candidates in lists, where tied scores share their ranks: what means over queries are made of.

Candidates of one score stand in any order with the same probability, and a figure is its mean over these orders:
McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores",
2008. A model that gives every candidate one score is thus as good as a random order, and no better.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers, Metric


class Ranks(NamedTuple):
    """Of lists ``[N, L]``, sorted by score, the best first; what is missing stands last.

    ``gains``: how relevant each candidate is, 0 where it is not or is missing, float64. ``above``: how many candidates
    of its list have a better score; ``tied``: how many have its own, itself among them; ``there``: it is a candidate.
    """

    gains: Tensor
    above: Tensor
    tied: Tensor
    there: Tensor


def ranks(answers: Answers) -> Ranks:
    """The ranks of scores ``[N, L]``, with labels ``[N, L]``: how relevant, below 0 where there is no candidate.

    A score that is NaN stands behind all others.
    """
    labels = answers.labels.cpu().double()
    there = labels >= 0
    scores = answers.scores.cpu().double().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    keys = torch.where(there, -scores, torch.nan)  # ascending, and NaN is sorted behind all
    keys, order = keys.sort(dim=1, stable=True)
    keys = torch.where(there.gather(1, order), keys, torch.inf)
    above = torch.searchsorted(keys, keys)
    count = there.sum(1, keepdim=True)
    tied = torch.searchsorted(keys, keys, right=True).minimum(count) - above
    gains = labels.clamp_min(0).gather(1, order)
    return Ranks(gains, above, tied, there.gather(1, order))


def shared(worth: Tensor, found: Ranks) -> Tensor:
    """The mean worth of the ranks that each candidate may have, ``[N, L]``. ``worth [L]``: of the first rank on."""
    sums = torch.cat([worth.new_zeros(1), worth.cumsum(0)])
    return torch.where(found.there, (sums[found.above + found.tied] - sums[found.above]) / found.tied.clamp_min(1), 0)


class PerQuery(Metric):
    """A mean over queries: their sum, and how many there are. Queries without a relevant candidate are left out."""

    def __init__(self) -> None:
        self.total, self.queries = 0.0, 0

    def figure(self, found: Ranks) -> Tensor:
        """Each list's figure ``[N]``; every one has a relevant candidate."""
        raise NotImplementedError(f"{type(self).__name__} must rate a list")

    def update(self, answers: Answers) -> None:
        """Sum figures."""
        figures, asked = self._figures(answers)
        self.total += figures.sum().item()
        self.queries += int(asked.sum())

    def each(self, answers: Answers) -> Tensor:
        """Each query's figure; NaN for one without a relevant candidate."""
        figures, asked = self._figures(answers)
        found = figures.new_full((len(asked),), torch.nan)
        found[asked] = figures
        return found

    def _figures(self, answers: Answers) -> tuple[Tensor, Tensor]:
        """The figures of the queries that count, and which these are, ``[N]`` bool."""
        found = ranks(answers)
        asked = (found.gains > 0).any(1)
        return self.figure(Ranks(*(part[asked] for part in found))), asked

    def compute(self) -> float | None:
        """The mean over queries; None without one."""
        return self.total / self.queries if self.queries else None

    def undefined(self) -> str:
        """Without a query that has an answer there is no mean."""
        return "" if self.queries else "no query has a relevant candidate"
