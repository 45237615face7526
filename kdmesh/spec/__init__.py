"""The file a user writes: pydantic models, reading, overrides, errors with paths."""

from kdmesh.spec.agents import AgentSpec, AnswersSpec, EmaSpec, ViewSpec
from kdmesh.spec.base import (
    DEFAULT_RULE,
    DEFAULT_TASK,
    FilterRef,
    GateRef,
    MetricRef,
    ModelRef,
    Named,
    ObjectiveRef,
    PruningRef,
    RewardRef,
    RuleRef,
    SignalRef,
    StrategyRef,
    Strict,
    TaskRef,
    TextRuleRef,
    ViewRef,
)
from kdmesh.spec.data import DataSpec, MixSpec, SamplingSpec, ShardSpec, StreamSpec
from kdmesh.spec.flows import ConsensusSpec, FlowSpec, HistorySpec, Ramp, TapRef, Temperature
from kdmesh.spec.mesh import HostSpec, MeshSpec
from kdmesh.spec.parties import ParticipationSpec, PartySpec, PrivacySpec
from kdmesh.spec.program import ProgramItem, Until
from kdmesh.spec.retention import RetentionSpec
from kdmesh.spec.text import TextSpec
from kdmesh.spec.train import TrainOverride, TrainSpec

__all__ = [
    "DEFAULT_RULE",
    "DEFAULT_TASK",
    "AgentSpec",
    "AnswersSpec",
    "ConsensusSpec",
    "DataSpec",
    "EmaSpec",
    "FilterRef",
    "FlowSpec",
    "GateRef",
    "HistorySpec",
    "HostSpec",
    "MeshSpec",
    "MetricRef",
    "MixSpec",
    "ModelRef",
    "Named",
    "ObjectiveRef",
    "ParticipationSpec",
    "PartySpec",
    "PrivacySpec",
    "ProgramItem",
    "PruningRef",
    "Ramp",
    "RetentionSpec",
    "RewardRef",
    "RuleRef",
    "SamplingSpec",
    "ShardSpec",
    "SignalRef",
    "StrategyRef",
    "StreamSpec",
    "Strict",
    "TapRef",
    "TaskRef",
    "Temperature",
    "TextRuleRef",
    "TextSpec",
    "TrainOverride",
    "TrainSpec",
    "Until",
    "ViewRef",
    "ViewSpec",
]
