"""What this package offers, by kdmesh's hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import kdmesh

from kdmesh_preference.offers import OBJECTIVES

if TYPE_CHECKING:
    from kdmesh.offers import ObjectiveOffer


@kdmesh.hookimpl
def kdmesh_objectives() -> list[ObjectiveOffer]:
    """Objectives that compare the two answers of a pair."""
    return OBJECTIVES
