"""The file a user writes, whole."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import Field, NonNegativeFloat, ValidationInfo, field_validator

from kdmesh.spec.agents import AgentSpec
from kdmesh.spec.base import DEFAULT_TASK, MetricRef, StrategyRef, Strict, TaskRef
from kdmesh.spec.data import SPLITS, DataSpec, StreamSpec
from kdmesh.spec.flows import ConsensusSpec, FlowSpec
from kdmesh.spec.licences import LicencesSpec
from kdmesh.spec.names import FORM, Name, unique
from kdmesh.spec.parties import OWN, ParticipationSpec, PartySpec
from kdmesh.spec.program import ProgramItem
from kdmesh.spec.retention import RetentionSpec
from kdmesh.spec.text import TextSpec
from kdmesh.spec.train import TrainSpec

T = TypeVar("T", bound=dict[str, Any])


class HostSpec(Strict):
    """A host: its agents, and what it takes of the cluster beyond what they need."""

    agents: list[str] = Field(description="the agents that it holds")
    cpus: float | None = Field(None, gt=0, description="on Ray: CPUs; by default the threads of its widest agent")
    gpus: float | None = Field(
        None, ge=0, description="on Ray: GPUs, also a part of one; by default 1 for agents on `cuda`"
    )
    resources: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="on Ray: resources that the cluster's nodes name"
    )


class MeshSpec(Strict):
    """A graph of models along whose edges knowledge flows: agents, how they are connected, data, training."""

    name: Name = Field("mesh", description="name of the run's folder", json_schema_extra={"pattern": FORM})
    description: str = Field("", description="one line: what this mesh shows")
    task: TaskRef = Field(
        default_factory=lambda: TaskRef(name=DEFAULT_TASK),
        description="what the models learn: classification (a class of a sample), multi_label (several labels of a "
        "sample), regression (values of a sample), ranking (the order of a query's candidates), token_classification "
        "(a tag of a word), language_modelling (the next token), or an offered name",
    )
    metrics: list[MetricRef] = Field(
        default_factory=list,
        description="metrics that the run reports beside those of its task; {NAME: {by: COLUMN}}: by the values of a "
        "column of the data",
    )
    primary: str | None = Field(
        None,
        description="the metric by which agents are compared: best teacher, gains, controls, verdicts, early stopping "
        "where it names none; by default the task's",
    )
    seed: int = Field(0, ge=0, description="run seed: initial weights, order, augmentation, dropout, sampling")
    data: DataSpec | None = Field(None, description="data set and splits")
    text: TextSpec = Field(default_factory=TextSpec, description="how texts become tokens (text tasks)")
    streams: dict[Name, StreamSpec] = Field(default_factory=dict, description="named streams over the splits")
    agents: dict[Name, AgentSpec] = Field(description="the models, by name")
    connect: list[StrategyRef] = Field(default_factory=list, description="short form: strategies over agents")
    consensus: dict[Name, ConsensusSpec] = Field(default_factory=dict, description="long form: consensus nodes")
    flows: list[FlowSpec] = Field(default_factory=list, description="long form: the edges")
    program: list[ProgramItem] = Field(default_factory=list, description="what a stage does, if not one lesson")
    train: TrainSpec = Field(default_factory=TrainSpec, description="training settings; agents may override")
    placement: Literal["together", "spread", "auto"] | dict[Name, list[str] | HostSpec] = Field(
        "auto",
        description="which host holds which agents: auto (a plugin's answer, else measured when it runs), together, "
        "spread, or {host: [agents]}",
    )

    parties: dict[Name, PartySpec] = Field(
        default_factory=dict,
        description="who takes part with agents and samples of its own, a host each: {clinic: {agents: a, data: ...}}",
    )
    participation: ParticipationSpec | None = Field(
        None, description="of parties: rounds in which not all of them take part; without it all are waited for"
    )

    keep: RetentionSpec | None = Field(
        None, description="how long the run's folder keeps what is made of samples; by default all of it"
    )

    licences: LicencesSpec | None = Field(
        None, description="licences of what students learn from, judged for a purpose; without it nothing is judged"
    )

    @field_validator("agents")
    @classmethod
    def _some(cls, value: dict[str, AgentSpec]) -> dict[str, AgentSpec]:
        if not value:
            raise ValueError("a mesh needs at least one agent")
        return unique(_not_labels(value))

    @field_validator("streams", "placement", "parties")
    @classmethod
    def _apart(cls, value: Any) -> Any:
        return unique(value) if isinstance(value, dict) else value

    @field_validator("consensus")
    @classmethod
    def _nodes(cls, value: dict[str, ConsensusSpec], info: ValidationInfo) -> dict[str, ConsensusSpec]:
        return unique(_not_labels(value), info.data.get("agents", ()))

    @property
    def starts(self) -> tuple[str, ...]:
        """The streams that there are without being named: the splits, and what parties have for themselves."""
        return (*SPLITS, OWN) if any(party.data is not None for party in self.parties.values()) else SPLITS

    def dump(self) -> dict[str, Any]:
        """The mesh as plain data that reads back to the same mesh, without what was left at its default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _not_labels(names: T) -> T:
    if "labels" in names:
        raise ValueError("`labels` names the labels' own source; call it something else")
    return names
