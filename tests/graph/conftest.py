from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ConfigDict

from kdmesh.builtin import plugin as builtin
from kdmesh.graph.plan import Plan
from kdmesh.graph.planner import make_plan
from kdmesh.hookspecs import hookimpl
from kdmesh.offers import Config, ConsensusOffer
from kdmesh.plugins import Registry
from kdmesh.spec import MeshSpec


class Anything(Config):
    model_config = ConfigDict(extra="allow")


class Rules:
    """Rules of a kind that the built-ins have none of: trained, in gradient space, stateful."""

    @hookimpl
    def kdmesh_consensus(self) -> list[ConsensusOffer]:
        return [
            ConsensusOffer("attention", "nowhere:Attention", Anything, trained=True),
            ConsensusOffer("aekd", "nowhere:AEKD", Anything, spaces=("gradient",), inputs=True),
            ConsensusOffer("noisy", "nowhere:Noisy", Anything, stateful=True),
        ]


@pytest.fixture(scope="session")
def offered() -> Registry:
    return Registry([builtin, Rules()])


@pytest.fixture(scope="session")
def plan(offered: Registry) -> Callable[[dict[str, Any]], Plan]:
    """Plan a mesh that is given as plain data."""
    return lambda data: make_plan(MeshSpec.model_validate(data), offered)
