"""What plugins offer, as far as messages about a file need it. The registry, which stands above, fills this in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Offered(Protocol):
    """Names and offers by kind; each offer has a ``name`` and a model of its settings, ``config``."""

    def names(self, kind: str) -> list[str]:
        """Every offered name of a kind, sorted."""

    def offers(self, kind: str) -> list[Any]:
        """Every offer of a kind, sorted by name."""


ask: Callable[[], Offered] | None = None
"""Gives what is offered; None where no plugin was ever looked for."""


def names(kind: str) -> list[str]:
    """Every name of a kind that is known."""
    return [] if ask is None else ask().names(kind)


def configs(kind: str) -> dict[str, Any]:
    """The models of settings of a kind, by name."""
    return {} if ask is None else {offer.name: offer.config for offer in ask().offers(kind)}
