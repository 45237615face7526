"""The criteria that there are, by name."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from kdmesh.errors import MeshError, nearest
from kdmesh.offers import Config, Offer


class DisagreementConfig(Config):
    """Settings of `disagreement`."""

    temperature: float = Field(1.0, gt=0, allow_inf_nan=False, description="of the probabilities that are compared")


class TeachabilityConfig(Config):
    """Settings of `teachability`."""

    k: int = Field(3, ge=1, description="how many of the student's likeliest columns count")


class DiversityConfig(Config):
    """Settings of `diversity`."""

    near: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="the distance of near duplicates; by default that of a tenth"
    )


CRITERIA = {
    offer.name: offer
    for offer in (
        Offer(
            "disagreement",
            "kdmesh.selection.disagreement:Disagreement",
            DisagreementConfig,
            "teachers that say unlike things",
            "Lin 1991",
        ),
        Offer(
            "teachability",
            "kdmesh.selection.teachability:Teachability",
            TeachabilityConfig,
            "teachers' mass on what the student finds likely",
        ),
        Offer("loss", "kdmesh.selection.loss:Loss", Config, "the student's loss"),
        Offer(
            "diversity",
            "kdmesh.selection.diversity:Diversity",
            DiversityConfig,
            "one of each group of near duplicates first",
        ),
    )
}
"""Built-in ones, in the form of what plugins offer: a hook for more needs a kind in :mod:`kdmesh.plugins.kinds`."""
RANDOM = "random"


def criteria(told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Criteria by name, made of their settings. MeshError for an unknown name or setting."""
    from pydantic import ValidationError

    from kdmesh.spec.explain import explain

    found = {}
    for name, settings in told.items():
        where = f"--by {name}"
        if name not in CRITERIA:
            instead = nearest(name, [*CRITERIA, RANDOM], "criteria")
            raise MeshError(f"unknown criterion {name!r}", where="--by", instead=instead)
        try:
            CRITERIA[name].config.model_validate(settings)
        except ValidationError as error:
            raise explain(error, CRITERIA[name].config, where=where, data=settings) from None
        found[name] = CRITERIA[name].make(settings)
    return found
