"""The rules of pruning (``from kdmesh.prunings import Width``), and what to write one with."""

from __future__ import annotations

from kdmesh.builtin.prunings.heads import Heads
from kdmesh.builtin.prunings.layers import Layers
from kdmesh.builtin.prunings.magnitude import Magnitude
from kdmesh.builtin.prunings.neurons import Neurons
from kdmesh.builtin.prunings.width import Width
from kdmesh.contracts.pruning import Pruning
from kdmesh.text.smaller import Cut, without_units

__all__ = [
    "Cut",
    "Heads",
    "Layers",
    "Magnitude",
    "Neurons",
    "Pruning",
    "Width",
    "without_units",
]
