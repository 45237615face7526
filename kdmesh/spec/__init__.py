"""The file a user writes: pydantic models, reading, overrides, errors with paths."""

from kdmesh.spec.agents import AgentSpec, EmaSpec, ViewSpec
from kdmesh.spec.base import ModelRef, Named, ObjectiveRef, RuleRef, SignalRef, StrategyRef, Strict
from kdmesh.spec.data import DataSpec, ShardSpec, StreamSpec
from kdmesh.spec.flows import LABEL_OBJECTIVE, ConsensusSpec, FlowSpec, Ramp, TapRef, Temperature
from kdmesh.spec.mesh import HostSpec, MeshSpec
from kdmesh.spec.program import ProgramItem, Until
from kdmesh.spec.text import TextSpec
from kdmesh.spec.train import TrainOverride, TrainSpec

__all__ = [
    "LABEL_OBJECTIVE",
    "AgentSpec",
    "ConsensusSpec",
    "DataSpec",
    "EmaSpec",
    "FlowSpec",
    "HostSpec",
    "MeshSpec",
    "ModelRef",
    "Named",
    "ObjectiveRef",
    "ProgramItem",
    "Ramp",
    "RuleRef",
    "ShardSpec",
    "SignalRef",
    "StrategyRef",
    "StreamSpec",
    "Strict",
    "TapRef",
    "Temperature",
    "TextSpec",
    "TrainOverride",
    "TrainSpec",
    "Until",
    "ViewSpec",
]
