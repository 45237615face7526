"""What may be released of private data, one mechanism in a file. There is none for logits: nothing bounds them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdmesh.privacy.releasing import Answering

NAMES = {
    "gnmax": "gnmax:GNMax",
    "confident_gnmax": "confident_gnmax:ConfidentGNMax",
    "gaussian_probabilities": "gaussian_probabilities:GaussianProbabilities",
}
"""Where each is, by its name."""


def made(name: str, settings: dict[str, Any], unit: str, adjacency: str) -> Answering:
    """A mechanism by its name. MeshError for settings, a unit or an adjacency with which it protects nobody."""
    module, _, kind = NAMES[name].partition(":")
    found: Answering = getattr(import_module(f"{__name__}.{module}"), kind)(**settings, unit=unit, adjacency=adjacency)
    return found
