"""What to write a task with, and which way each figure is better. Every comparison asks here; imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.task import Chance, Task, most_frequent
from kdmesh.offers import PROBABILITIES
from kdmesh.plugins import registry
from kdmesh.spec.base import DEFAULT_TASK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.offers import MetricOffer, TaskOffer

__all__ = [
    "Chance",
    "Figure",
    "Task",
    "compared",
    "definitions",
    "figure",
    "metric",
    "most_frequent",
    "primary",
    "probabilistic",
    "recorded",
]

MEANING = {
    "agreement": "share of samples, or tokens, of which two sources have the same likeliest class, or first candidate; "
    "of several labels a sample the share of all labels that both put on one side of 0.5; mean over pairs",
    "churn": "share of samples, or tokens, whose likeliest class, or first candidate, changed since the round before; "
    "of several labels a sample the share of all labels that did; mean over sources",
    "consensus": "formed at its readers' temperature; its loss and ece are of the same answers at temperature 1",
    "best_teacher": "of an agent's own teachers the best by the run's metric on validation; of a run: of all teachers",
    "half_width": "half of the 95% t interval (Student) of the mean over n seeds; of differences, paired by seed",
}
"""What figures of a run that are no metric mean, by their keys in its files."""


@dataclass(frozen=True)
class Figure:
    """A metric by its key in the figures, and its direction."""

    name: str
    higher: bool = True

    @property
    def title(self) -> str:
        """Its name as a table writes it."""
        return self.name.replace("_", " ").replace("bits per", "bits a")

    def of(self, figures: Mapping[str, float | None] | None) -> float | None:
        """The value among the figures of one split; None where it was not measured, or is not finite."""
        value = (figures or {}).get(self.name)
        return value if value is not None and math.isfinite(value) else None

    def gain(self, own: float, other: float) -> float:
        """By how much ``own`` is better than ``other``: negative where it is worse."""
        return own - other if self.higher else other - own

    def worth(self, value: float) -> float:
        """The value as a number of which more is better."""
        return value if self.higher else -value


def figure(offer: MetricOffer) -> Figure:
    """The figure that a metric gives."""
    return Figure(offer.name, offer.higher)


def definitions(names: Iterable[str]) -> dict[str, str]:
    """What the figures of a run mean: the metrics of these names, as their offers say, and the others."""
    known = registry().names("metrics")
    found: dict[str, str] = {}
    for name in names:
        plain = max((one for one in known if name == one or name.startswith(f"{one}_by_")), key=len, default="")
        if plain:
            column = name[len(f"{plain}_by_") :]
            summary = registry().find("metrics", plain).summary
            found[name] = summary + (f"; by the values of column {column!r}" if column else "")
    return found | MEANING


def metric(name: str) -> Figure:
    """A metric by its name; MeshError for one that nobody offers."""
    return figure(registry().find("metrics", name, "metrics"))


def recorded(figures: Mapping[str, object]) -> Figure:
    """By which metric a round was recorded, which has a figure of every agent under its name."""
    known = set(registry().names("metrics"))
    return next((metric(name) for name in figures if name in known), primary(None))


def probabilistic(task: str | None) -> bool:
    """Whether a task's answers are scores of classes or of labels, which have probabilities."""
    offer: TaskOffer = registry().find("tasks", task or DEFAULT_TASK, "task")
    return offer.labels in ("classes", "indicators") and not {*PROBABILITIES}.isdisjoint(offer.spaces)


def compared(summary: Mapping[str, Any]) -> Figure:
    """By which metric the agents of a run are compared, from its summary: its own, or, in one of old, its task's."""
    return metric(summary["metric"]) if summary.get("metric") else primary(summary.get("task"))


def primary(task: str | None) -> Figure:
    """What a task is judged by, where a mesh does not say. None: classification, as in summaries of old."""
    offer: TaskOffer = registry().find("tasks", task or DEFAULT_TASK, "task")
    return metric(offer.primary)
