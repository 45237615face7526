"""What this package offers, by kdmesh's hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import kdmesh

from kdmesh_preference.offers import OBJECTIVES, TEXT_RULES

if TYPE_CHECKING:
    from kdmesh.offers import ObjectiveOffer, TextRuleOffer


@kdmesh.hookimpl
def kdmesh_objectives() -> list[ObjectiveOffer]:
    """Objectives that compare the two answers of a pair."""
    return OBJECTIVES


@kdmesh.hookimpl
def kdmesh_text_rules() -> list[TextRuleOffer]:
    """Rules that say which of the texts to a prompt is better than which."""
    return TEXT_RULES
