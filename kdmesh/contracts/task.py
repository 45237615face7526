"""The interface of a task: what a model's answers mean. What planning needs of it stands in its offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.table import Table


@dataclass(frozen=True)
class Chance:
    """What answers reach that ignore the sample: ``value`` of ``metric``; ``words``: which answers these are."""

    metric: str
    value: float
    words: str


def most_frequent(labels: Tensor, words: str) -> Chance | None:
    """The accuracy of who answers the most frequent of ``labels [N]`` always; None where there is one class alone."""
    counts = labels.unique(return_counts=True)[1]
    return None if len(counts) < 2 else Chance("accuracy", int(counts.max()) / len(labels), words)


def one_for_all(labels: Tensor, words: str) -> Chance | None:
    """The balanced accuracy of who answers one class always, the same for each; None where there is one class alone."""
    count = len(labels.unique())
    return None if count < 2 else Chance("balanced_accuracy", 1 / count, words)


def refuse_weights(weights: list[float] | str | None, table: Table, task: str) -> None:
    """Raise MeshError where the task's ``class_weights`` are a list without one for each class of the table."""
    if isinstance(weights, list) and table.classes and len(weights) != table.classes:
        names = table.labels or [str(number) for number in range(table.classes)]
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise MeshError(
            f"{len(weights)} weights for {table.classes} classes",
            where=f"task.{task}.class_weights",
            instead=f"a number for each class, in this order: {shown}",
        )


def refuse_decided(found: object, scores: Tensor) -> None:
    """Raise ValueError for what :meth:`Task.decide` gives that has no answers for each of these rows."""
    import torch

    good = isinstance(found, torch.Tensor) and found.dtype == torch.int64 and found.dim() in (1, 2)
    if not good or len(found) != len(scores) or found.device != scores.device:  # type: ignore[arg-type,attr-defined]
        what = f"{tuple(found.shape)}, {found.dtype}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise ValueError(f"decide() gave {what}, not [{len(scores)}] or [{len(scores)}, K] of torch.int64")


def refuse_classes(found: Tensor, scores: Tensor) -> None:
    """Raise ValueError for answers ``[N]`` that are no columns of the scores ``[N, C]``; a device is waited for."""
    if found.dim() != 1 or not len(found):
        return
    low, high = int(found.min()), int(found.max())
    if not 0 <= low <= high < scores.shape[1]:
        raise ValueError(f"decide() gave answers from {low} to {high}, not from 0 to {scores.shape[1] - 1}")


class Task:
    """What models learn. This class is classification into as many classes as the data set has.

    The engine calls the methods below and nothing else. It imports no torch by itself: tensors come to it. Made as
    ``factory(**config)`` of its offer, once in each process; it holds no state.
    """

    def refuse(self, table: Table) -> None:
        """Raise MeshError for a data set whose labels are not this task's.

        Called once with the whole table, before anything is trained. ``table.y``: labels ``[N]`` int64 of classes,
        ``[N, T]`` float32 of values or relevance, ``[N, K]`` int64 of indicators, 0 or 1; None where the data set has
        no column of labels.
        """

    def outputs(self, table: Table) -> int:
        """How many outputs a model has per row, for an offer whose ``outputs`` are `labels`."""
        return table.classes

    def decide(self, scores: Tensor) -> Tensor | None:
        """The answer that a row of scores stands for, so that two sources can be compared: ``[N, C]`` to ``[N]`` int64.

        Or to ``[N, K]``, where a row has K answers, each of which two sources give alike or not. None where answers are
        not discrete; the offer's ``decides`` is then False.
        """
        return scores.argmax(1)

    def chance(self, labels: Tensor) -> Chance | None:
        """What the best constant answer reaches on these labels ``[N, ...]``; None where no level is known."""
        del labels
        return None
