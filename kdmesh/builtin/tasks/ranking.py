"""Ranking: order the candidates of a query by how relevant they are. A sample is a query with its whole list.

Cao, Qin, Liu, Tsai and Li, "Learning to Rank: From Pairwise Approach to Listwise Approach", 2007.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.contracts.task import Chance, Task
from kdmesh.errors import MeshError
from kdmesh.streams.unread import chunks

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.table import Table

FORM = "samples [N, 1 + L, ...], the query first, then L candidates, and labels [N, L]: 0, or how relevant each is"
TEXTS = "text: {query: COLUMN, candidates: COLUMN, relevance: COLUMN}, or query, positive and negative"


class Ranking(Task):
    """Samples ``[N, 1 + L, ...]``, a query and L candidates, or texts; labels ``[N, L]`` float32, how relevant each is.

    0: not relevant; above 0: relevant, the more the higher; below 0: there is no such candidate, in a list shorter
    than L. A model answers with a score of each candidate, ``[B, L]``, and ``-inf`` for one that there is not. Chance:
    nDCG of a random order, the mean over all orders.
    """

    def refuse(self, table: Table) -> None:
        """Lists and labels must fit: as many columns of labels as candidates, and missing ones are missing in both."""
        if table.is_text:
            _refuse_texts(table)
        else:
            _refuse_numbers(table)
        y = table.y
        if y is None or not (y > 0).any():
            raise MeshError("no candidate of any sample is relevant", where="data.dataset", instead=FORM)

    def outputs(self, table: Table) -> int:
        """A score per candidate of the longest list."""
        return 0 if table.y is None else table.y.shape[1]

    def chance(self, labels: Tensor) -> Chance | None:
        """NDCG of a random order of each list; None where no list has a relevant candidate and another one."""
        from kdmesh.builtin.metrics.ndcg import NDCG
        from kdmesh.contracts.metric import Answers

        made = NDCG()
        made.update(Answers(labels.new_zeros(labels.shape), labels))
        value = made.compute()
        return None if value is None or value == 1 else Chance("ndcg", value, "a random order")


def _refuse_numbers(table: Table) -> None:
    if table.y is None:
        raise MeshError("these lists have no relevance labels", where="data.dataset", instead=FORM)
    x, y = table.numbers, table.y
    if x.dim() < 3 or x.shape[1] != 1 + y.shape[1] or y.shape[1] < 2:
        found = f"samples of shape {list(x.shape[1:])} with {y.shape[1]} labels each are no lists"
        raise MeshError(found, where="data.dataset", instead=FORM)
    there = y >= 0
    blank = torch.cat([(part[:, 1:].flatten(2) == 0).all(2) for part in chunks(x)])
    for wrong, what in (
        (there & blank, "is all zeros, as where there is none, and has a label"),
        (~there & ~blank, "has a label below 0, as where there is none, and is not all zeros"),
    ):
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            raise MeshError(f"candidate {column} of sample {row} {what}", where="data.dataset", instead=FORM)
    if not there.any(1).all():
        row = int((~there.any(1)).nonzero()[0])
        raise MeshError(f"sample {row} has no candidate", where="data.dataset", instead="one or more for a query")


def _refuse_texts(table: Table) -> None:
    counts = [len(sample.candidates or ()) for sample in table.texts]
    if table.y is None or not all(counts):
        what = "these texts have no candidates" if not any(counts) else f"sample {counts.index(0)} has no candidate"
        what = "these lists have no relevance labels" if all(counts) else what
        raise MeshError(what, where="data.dataset", instead=TEXTS)
    if max(counts) < 2:
        raise MeshError(
            "no query has more than one candidate: there is nothing to order", where="data.dataset", instead=TEXTS
        )
    for row, (count, labels) in enumerate(zip(counts, table.y.tolist(), strict=True)):
        if [label >= 0 for label in labels] != [column < count for column in range(len(labels))]:
            what = f"sample {row} has {count} candidates, and other labels than one of 0 or above for each"
            raise MeshError(what, where="data.dataset", instead="as many, then labels below 0")
