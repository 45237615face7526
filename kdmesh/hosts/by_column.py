"""A metric by the values of a column of the data: how good answers are about each, and where they are worst."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.metric import Metric
from kdmesh.hosts import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdmesh.contracts.metric import Answers


class ByColumn(Metric):
    """One metric for each value of a column, which sees the rows with this value; rows without one are left out.

    ``make``: gives a fresh metric, whose figure is one number; ``name``: its name; ``values``: those of the column, by
    their numbers; ``higher``: whether more is better.
    """

    def __init__(self, name: str, column: str, values: Sequence[str], make: Callable[[], Metric], higher: bool) -> None:
        self.name, self.column, self.values, self.make, self.higher = name, column, values, make, higher
        self.seen: dict[int, Metric] = {}
        self.rows: dict[int, int] = {}

    def update(self, answers: Answers) -> None:
        """Let each value's metric see its rows."""
        numbers = answers.columns[self.column]
        for number in numbers.unique().tolist():
            if number >= 0:
                part = answers.only(numbers == number)
                self.seen.setdefault(number, self.make()).update(part)
                self.rows[number] = self.rows.get(number, 0) + len(part)

    def compute(self) -> dict[str, Any] | None:
        """Figures by value, the worst of them and their mean, which counts every value alike; None where there is none.

        A value of which the metric is not defined has None, and is no part of the mean.
        """
        figures = {self.values[number]: self.seen[number].compute() for number in sorted(self.seen)}
        for figure in figures.values():
            guard.refuse_figure(figure, True)
        known = {value: figure for value, figure in figures.items() if figure is not None}
        if not known:
            return None
        worst = (min if self.higher else max)(known, key=known.__getitem__)
        return {
            "metric": self.name,
            "column": self.column,
            "values": figures,
            "rows": {self.values[number]: self.rows[number] for number in sorted(self.seen)},
            "worst": known[worst],
            "worst_value": worst,
            "average": fmean(known.values()),
        }

    def undefined(self) -> str:
        """Why there is no figure of any value."""
        first = next((one.undefined() for one in self.seen.values()), "")
        return first or f"no row has a value in column {self.column!r}"
