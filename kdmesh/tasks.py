"""Tasks: which metric each is judged by first, and which way is better. Every comparison asks here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HIGHER = {"accuracy": True, "loss": False, "ece": False, "bits_per_character": False}  # whether more is better
PRIMARY = {
    "classification": "accuracy",
    "token_classification": "accuracy",
    "language_modelling": "bits_per_character",  # accuracy and loss depend on how a model cuts texts into tokens
}


@dataclass(frozen=True)
class Metric:
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


def metric(name: str) -> Metric:
    """A metric by its name."""
    return Metric(name, HIGHER[name])


def recorded(figures: Mapping[str, object]) -> Metric:
    """By which metric a round was recorded, which has a figure of every agent under its name."""
    return metric(next((name for name in HIGHER if name in figures), "accuracy"))


def primary(task: str | None) -> Metric:
    """What a task is judged by. None: classification, as in summaries that name no task."""
    return metric(PRIMARY[task or "classification"])
