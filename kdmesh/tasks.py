"""What to write a task with, and which way each figure is better. Every comparison asks here; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.contracts.task import Chance, Task, most_frequent
from kdmesh.plugins import registry
from kdmesh.spec.base import DEFAULT_TASK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.offers import MetricOffer, TaskOffer

__all__ = ["Chance", "Figure", "Task", "figure", "metric", "most_frequent", "primary", "recorded"]


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
        """The value among the figures of one split, None where it was not measured."""
        return (figures or {}).get(self.name)

    def gain(self, own: float, other: float) -> float:
        """By how much ``own`` is better than ``other``: negative where it is worse."""
        return own - other if self.higher else other - own

    def worth(self, value: float) -> float:
        """The value as a number of which more is better."""
        return value if self.higher else -value


def figure(offer: MetricOffer) -> Figure:
    """The figure that a metric gives."""
    return Figure(offer.name, offer.higher)


def metric(name: str) -> Figure:
    """A metric by its name; MeshError for one that nobody offers."""
    return figure(registry().find("metrics", name, "metrics"))


def recorded(figures: Mapping[str, object]) -> Figure:
    """By which metric a round was recorded, which has a figure of every agent under its name."""
    known = set(registry().names("metrics"))
    return next((metric(name) for name in figures if name in known), primary(None))


def primary(task: str | None) -> Figure:
    """What a task is judged by. None: the task of a mesh that names none, as in summaries of old."""
    offer: TaskOffer = registry().find("tasks", task or DEFAULT_TASK, "task")
    return metric(offer.primary)
