"""What this package offers, by kdmesh's hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import kdmesh

from kdmesh_lm.offers import GATES, OBJECTIVES

if TYPE_CHECKING:
    from kdmesh.offers import GateOffer, ObjectiveOffer


@kdmesh.hookimpl
def kdmesh_gates() -> list[GateOffer]:
    """Gates of the batches that a student writes."""
    return GATES


@kdmesh.hookimpl
def kdmesh_objectives() -> list[ObjectiveOffer]:
    """Objectives between outputs that weigh tokens by what both sides say."""
    return OBJECTIVES
