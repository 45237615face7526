"""The interface of a strategy: given agents, it draws consensus nodes and flows on a canvas, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kdmesh.graph.canvas import Canvas


class Strategy(Protocol):
    """Constructed with its configuration's fields as keyword arguments; `draw` is called once, by the planner.

    A strategy runs before torch is imported: it handles names, never tensors.
    """

    def draw(self, canvas: Canvas) -> None:
        """Add consensus nodes, flows, programs and derived agents to the canvas."""
