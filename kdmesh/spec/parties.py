"""Parties: whose agents are whose, and where the samples are that only one of them has."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from kdmesh.spec.base import DatasetRef, Strict

OWN = "own"
"""The stream of what parties have for themselves: each agent sees its party's samples, and what it sees is private."""
COORDINATOR = "coordinator"
"""The host of the agents that belong to no party, and of consensus nodes that several parties feed."""


class PartySpec(Strict):
    """Who takes part with agents, and perhaps samples, of its own. On a machine of its own only what flows declare
    leaves it."""

    agents: list[str] = Field(min_length=1, description="the agents that live with it, `clinic[*]` for all of a count")
    data: DatasetRef | None = Field(
        None,
        description="its own samples, read nowhere else: stream `own`; the classes and columns are those of `data`",
    )

    @model_validator(mode="before")
    @classmethod
    def _agents_alone(cls, value: Any) -> Any:
        value = {"agents": value} if isinstance(value, str | list) else value
        if isinstance(value, dict) and isinstance(value.get("agents"), str):
            value = {**value, "agents": [value["agents"]]}
        return value
