"""What this package offers, by kdmesh's hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import kdmesh

from kdmesh_logit.offers import CONSENSUS, OBJECTIVES

if TYPE_CHECKING:
    from kdmesh.offers import ConsensusOffer, ObjectiveOffer


@kdmesh.hookimpl
def kdmesh_objectives() -> list[ObjectiveOffer]:
    """Objectives between outputs."""
    return OBJECTIVES


@kdmesh.hookimpl
def kdmesh_consensus() -> list[ConsensusOffer]:
    """The consensus rules of KDCL."""
    return CONSENSUS
