"""A query's candidates in a row's cells, and how relevant each of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from kdmesh.errors import MeshError
from kdmesh.tables.files import memory_limit
from kdmesh.tables.rows import LARGEST, Rows, shown
from kdmesh.tables.samples import list_of, refuse_cell, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Candidates(NamedTuple):
    """The columns that make a list: ``candidates`` and ``relevance``, or ``positive`` and ``negative``; else None."""

    candidates: str | None
    relevance: str | None
    positive: str | None
    negative: str | None

    def names(self) -> list[str]:
        """The columns that there must be."""
        return [name for name in self if name is not None]


def lists_of(rows: Rows, columns: Candidates) -> list[tuple[list[str], list[float]]]:
    """Each row's candidates and how relevant they are; a cell that makes no list is a MeshError with its place."""
    every = range(len(rows.cells))
    if columns.candidates is not None and columns.relevance is not None:
        return [_rated(rows, row, columns.candidates, columns.relevance) for row in every]
    assert columns.positive is not None and columns.negative is not None  # TextConfig asks for one of the two forms
    return [_told_apart(rows, row, columns.positive, columns.negative) for row in every]


def relevance_of(lists: Sequence[tuple[list[str], list[float]]], rows: Rows) -> Tensor:
    """How relevant each candidate is, ``[N, L]`` float32, with -1 where a list is shorter than the longest."""
    longest = max(len(candidates) for candidates, _ in lists)
    if (size := 4 * len(lists) * longest) > memory_limit():
        what = f"{rows.path}: lists of up to {longest} candidates would take {size:,} bytes, of {memory_limit():,}"
        raise MeshError(what, where=rows.where, instead="shorter lists, or fewer of them")
    y = torch.full((len(lists), longest), -1.0)
    for row, (_, labels) in enumerate(lists):
        y[row, : len(labels)] = torch.tensor(labels)
    return y


def mixed(positives: Sequence[Any], negatives: Sequence[Any], row: int) -> tuple[list[Any], list[float]]:
    """Candidates and their labels, 1 and 0, in an order of the row's own: a place in the list tells nothing."""
    every = [*((one, 1.0) for one in positives), *((one, 0.0) for one in negatives)]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(row)).tolist()
    return [every[at][0] for at in order], [every[at][1] for at in order]


def relevance(label: Any) -> float | None:
    """How relevant a candidate is by its label, 0 or above; None where it does not say so."""
    if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label <= LARGEST:
        return None
    return float(label)


def candidates_of(rows: Rows, column: str) -> list[list[str]]:
    """Each row's candidates alone."""
    return [_candidates(rows, row, column) for row in range(len(rows.cells))]


def _candidates(rows: Rows, row: int, column: str) -> list[str]:
    items = list_of(rows, row, column, '["a text", ...]: the candidates of each query')
    if not items:
        refuse_cell(rows, row, column, "a query without a candidate", "one or more")
    return [text_of(rows, row, column, item) for item in items]


def _rated(rows: Rows, row: int, candidates: str, labels: str) -> tuple[list[str], list[float]]:
    texts = _candidates(rows, row, candidates)
    given = list_of(rows, row, labels, "[1, 0, ...]: how relevant each candidate is")
    if len(given) != len(texts):
        what = f"{len(given)} values for {len(texts)} candidates"
        refuse_cell(rows, row, labels, what, "how relevant each candidate is: 0, or more")
    found = [relevance(label) for label in given]
    if None in found:
        what = f"{shown(given[found.index(None)])} is not a relevance a candidate is"
        refuse_cell(rows, row, labels, what, "0, or a number above 0 for what is relevant")
    return texts, [label for label in found if label is not None]


def _told_apart(rows: Rows, row: int, positive: str, negative: str) -> tuple[list[str], list[float]]:
    def texts(column: str) -> list[str]:
        cell = rows.cells[row][column]
        if cell is None or cell == "":
            return []
        items = cell if isinstance(cell, list) else [cell]
        return [text_of(rows, row, column, item) for item in items]

    right, wrong = texts(positive), texts(negative)
    if not right and not wrong:
        refuse_cell(rows, row, positive, "a query without a candidate", "a text, or a list of texts")
    return mixed(right, wrong, row)
