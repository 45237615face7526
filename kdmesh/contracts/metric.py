"""The interface of a metric: it sees answers and labels a few rows at a time, and gives one figure at the end."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.contracts.filter import WrittenText


class Answers:
    """Some rows of a model's answers and their labels. What several metrics need is computed once.

    ``scores``: logits ``[N, C]``, with ``probs`` probabilities, or, of a task whose labels are values, values ``[N,
    T]``, or, of lists, scores of candidates ``[N, L]``. ``labels``: ``[N]`` int64 of classes, values ``[N, T]``,
    indicators ``[N, K]`` int64, or how relevant candidates are ``[N, L]``, below 0 where there is none. ``classes``:
    what the columns stand for where they are not all classes, one number a column. ``characters``: how many characters
    of text the rows are about, in all, or each ``[N]`` int64, whose sum it then is; None where the task asks nothing of
    units. ``total``: how many classes the data have; by default as many as there are columns. ``columns``: of columns
    of the data by which something is measured, the number of each row's value, ``[N]`` int64, -1 for none. ``texts``:
    where the rows are texts that a model wrote, for metrics whose offers need them; ``scores`` and ``labels`` then say
    nothing.
    """

    def __init__(
        self,
        scores: Tensor,
        labels: Tensor,
        *,
        probs: bool = False,
        classes: Sequence[int] | None = None,
        characters: int | Tensor | None = None,
        total: int | None = None,
        columns: Mapping[str, Tensor] | None = None,
        texts: Sequence[WrittenText] = (),
    ) -> None:
        self.scores = scores.float() if scores.element_size() < 4 else scores  # of models in half precision
        self.labels, self.classes, self.probs = labels, classes, probs
        self._each = characters if isinstance(characters, Tensor) else None
        self.characters = int(characters.sum()) if isinstance(characters, Tensor) else characters
        self.total = scores.shape[1] if total is None else total
        self.columns: Mapping[str, Tensor] = columns or {}
        self.texts = texts

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, rows: Tensor) -> Answers:
        """Those of some rows, ``[N]`` bool; about how many characters they are is known where that of each row is."""
        columns = {name: numbers[rows] for name, numbers in self.columns.items()}
        return Answers(
            self.scores[rows],
            self.labels[rows],
            probs=self.probs,
            classes=self.classes,
            characters=None if self._each is None else self._each[rows],
            total=self.total,
            columns=columns,
        )

    @cached_property
    def p(self) -> Tensor:
        """Probabilities ``[N, C]``."""
        return self.scores if self.probs else self.scores.softmax(1)

    @cached_property
    def marginals(self) -> Tensor:
        """The probability of each label on its own ``[N, K]``, where labels are indicators."""
        return self.scores if self.probs else self.scores.sigmoid()

    @cached_property
    def log_p(self) -> Tensor:
        """Their logarithms, finite also for probabilities of 0 that were given as such."""
        if self.probs:
            return self.p.clamp_min(torch.finfo(self.p.dtype).tiny).log()
        return self.scores.log_softmax(1)

    @cached_property
    def _best(self) -> tuple[Tensor, Tensor]:
        confidence, column = self.p.max(1)
        return confidence, column

    @property
    def confidence(self) -> Tensor:
        """The largest probability of each row, ``[N]``."""
        return self._best[0]

    @property
    def column(self) -> Tensor:
        """The column of the largest probability of each row, ``[N]`` int64."""
        return self._best[1]

    @cached_property
    def guess(self) -> Tensor:
        """The likeliest class of each row, ``[N]`` int64, as labels count classes."""
        if self.classes is None:
            return self.column
        return torch.tensor(self.classes, device=self.column.device)[self.column]

    @cached_property
    def own(self) -> tuple[Tensor, Tensor | None]:
        """The column of each label, ``[N]`` int64, and whether there is one, ``[N]`` bool; None: there is always."""
        if self.classes is None:
            return self.labels, None
        return own_classes(self.labels, self.classes)

    @cached_property
    def hit(self) -> Tensor:
        """Whether the likeliest class is the label, ``[N]`` bool; never where the label's class has no column."""
        column, known = self.own
        return self.column == column if known is None else (self.column == column) & known


def own_classes(labels: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which of ``classes`` each label is, ``[N]`` int64, 0 for none of them; and whether it is one, ``[N]`` bool."""
    same = labels[:, None] == torch.tensor(classes, device=labels.device)
    return same.int().argmax(1), same.any(1)


class Metric:
    """A figure of answers on a stream, accumulated: :meth:`update` for some rows, at the end :meth:`compute`.

    A stream is cut anywhere, and the figure must not depend on where. What is kept of the rows is on the CPU, and
    should not grow with them; a metric that must keep them all says so.

    Every call is without gradient. ``update`` must not change what it is given.
    """

    def update(self, answers: Answers) -> None:
        """See some more rows."""
        raise NotImplementedError(f"{type(self).__name__} must see answers")  # the first of two abstract methods

    def compute(self) -> Any:
        """The figure of what was seen, a float; of an offer that is not ``scalar``, lists. None: not defined here."""
        raise NotImplementedError(f"{type(self).__name__} must compute a figure")  # the second

    def each(self, answers: Answers) -> Tensor | None:
        """What each row adds to the figure, ``[N]``, where that is a mean over rows; NaN for rows that do not count.

        None, as here, of a figure that is no such mean. What was seen before plays no part. Rows are filed by it, so
        that runs can be compared sample by sample.
        """
        del answers
        return None

    def undefined(self) -> str:
        """Why :meth:`compute` gave None: `one class alone`. Empty where there is nothing to say."""
        return ""


class TextMetric(Metric):
    """A mean over texts that a model wrote: a subclass says in :meth:`of` what each counts, None for one that does not.

    Its offer says ``needs=("texts",)``.
    """

    reason = "no text counts"
    """Why there is no figure, where no text counts."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def of(self, text: WrittenText) -> float | None:
        """What a text adds to the mean."""
        raise NotImplementedError(f"{type(self).__name__} must say what a text counts")  # the one abstract method

    def update(self, answers: Answers) -> None:
        """Add some texts: a number of each is kept, so that their order does not matter to the last bit."""
        self._values += [value for text in answers.texts if (value := self.of(text)) is not None]

    def compute(self) -> float | None:
        """The mean; None where no text counts."""
        return math.fsum(self._values) / len(self._values) if self._values else None

    def each(self, answers: Answers) -> Tensor | None:
        """What each text counts, ``[N]`` float64; NaN for one that does not."""
        values = [self.of(text) for text in answers.texts]
        return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)

    def undefined(self) -> str:
        """Why there is no mean."""
        return "" if self._values else self.reason
