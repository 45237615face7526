"""The gates, ready for any loop (``from kdmesh.gates import SmallLoss``), and what to write one with."""

from __future__ import annotations

from kdmesh.builtin.gates.confident import Confident
from kdmesh.builtin.gates.gap import Gap
from kdmesh.builtin.gates.small_loss import SmallLoss
from kdmesh.contracts.gate import Gate

__all__ = ["Confident", "Gap", "Gate", "SmallLoss"]
