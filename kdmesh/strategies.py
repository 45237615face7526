"""What to write a strategy with: the canvas it draws on, and the types and questions that all strategies share.

Imports no torch: strategies run when a mesh is planned.
"""

from __future__ import annotations

from kdmesh.builtin.strategies._common import (
    LabelWeight,
    Names,
    Period,
    Weight,
    apart,
    divided,
    one_or_many,
    softened,
    students,
    teaching,
)
from kdmesh.graph.canvas import Canvas
from kdmesh.graph.strategy import Strategy
from kdmesh.spec import (
    AgentSpec,
    ConsensusSpec,
    ObjectiveRef,
    ProgramItem,
    Ramp,
    RuleRef,
    SignalRef,
    StreamSpec,
    TapRef,
)

__all__ = [
    "AgentSpec",
    "Canvas",
    "ConsensusSpec",
    "LabelWeight",
    "Names",
    "ObjectiveRef",
    "Period",
    "ProgramItem",
    "Ramp",
    "RuleRef",
    "SignalRef",
    "Strategy",
    "StreamSpec",
    "TapRef",
    "Weight",
    "apart",
    "divided",
    "one_or_many",
    "softened",
    "students",
    "teaching",
]
