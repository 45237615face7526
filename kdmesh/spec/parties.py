"""Parties: whose agents are whose, and where the samples are that only one of them has."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from kdmesh.spec.base import DatasetRef, Strict

OWN = "own"
"""The stream of what parties have for themselves: each agent sees its party's samples, and what it sees is private."""
COORDINATOR = "coordinator"
"""The host of the agents that belong to no party, and of consensus nodes that several parties feed."""


class PrivacySpec(Strict):
    """A privacy budget: what may be made known of a party's private samples, in all and for good.

    A party with one says nothing that was made of them, but with noise, on an account; see docs/federated.md.
    """

    epsilon: float = Field(allow_inf_nan=False, description="what may be spent, by Renyi divergences")
    delta: float = Field(allow_inf_nan=False, description="at which; well below one in as many as there are samples")
    unit: Literal["sample", "party"] = Field("sample", description="who is protected: one of its samples, or the party")
    adjacency: Literal["replace", "add_remove", "zero_out"] = Field(
        "replace", description="against what: another stands in its place, it is not there, or nothing of it is used"
    )

    @field_validator("epsilon")
    @classmethod
    def _spent(cls, value: float) -> float:
        if value <= 0:
            raise ValueError(f"with an epsilon of {value:g} nothing may be answered; write one above 0: 1, say")
        return value

    @field_validator("delta")
    @classmethod
    def _failing(cls, value: float) -> float:
        if not 0 < value < 1:
            raise ValueError(
                f"with a delta of {value:g} Gaussian noise keeps no budget; write one between 0 and 1: 1e-5, say"
            )
        return value


class PartySpec(Strict):
    """Who takes part with agents, and perhaps samples, of its own. On a machine of its own only what flows declare
    leaves it."""

    agents: list[str] = Field(min_length=1, description="the agents that live with it, `clinic[*]` for all of a count")
    data: DatasetRef | None = Field(
        None,
        description="its own samples, read nowhere else: stream `own`; the classes and columns are those of `data`",
    )
    samples: int | None = Field(
        None,
        ge=1,
        description="how many these are; where all say so, a run with `participation` begins before all have come",
    )
    licence: str | None = Field(
        None, min_length=1, description="of its own samples, as `data.licence` is of those of `data`"
    )
    privacy: PrivacySpec | None = Field(
        None, description="a budget: nothing made of its private samples leaves it without noise, on an account"
    )

    @model_validator(mode="before")
    @classmethod
    def _agents_alone(cls, value: Any) -> Any:
        value = {"agents": value} if isinstance(value, str | list) else value
        if isinstance(value, dict) and isinstance(value.get("agents"), str):
            value = {**value, "agents": [value["agents"]]}
        return value

    @model_validator(mode="after")
    def _counted(self) -> PartySpec:
        if self.samples is not None and self.data is None:
            raise ValueError("`samples` counts a party's own `data`, and here are none; leave it out")
        return self

    @model_validator(mode="after")
    def _of_samples(self) -> Self:
        if self.licence is not None and self.data is None:
            raise ValueError("`licence` is of samples of its own, and it has none: leave it out, or write `data`")
        return self


class ParticipationSpec(Strict):
    """Rounds in which not all parties take part. Who does not trains, publishes and receives nothing in that round, and
    comes back as it was after its last."""

    fraction: float = Field(
        1.0, gt=0, le=1, description="of all parties, how many are drawn for a round, by the mesh's seed"
    )
    quorum: int = Field(
        1, ge=1, description="parties that a round begins with at least; the run waits until so many are there"
    )
    timeout: float | None = Field(
        None,
        gt=0,
        description="seconds that a party may be silent before its round goes on without it; by default as "
        "long as the run's `--progress-timeout`",
    )
    stale: Literal["forget", "keep"] = Field(
        "forget", description="what counts of a party that is not there: nothing (forget), or its last answers (keep)"
    )
    attendance: list[list[str]] | None = Field(
        None, description="of a simulation: who takes part in each round, as another run recorded it (`--attendance`)"
    )
