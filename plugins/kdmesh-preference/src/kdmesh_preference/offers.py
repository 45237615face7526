"""The offers of this package: reading this imports no torch."""

from __future__ import annotations

from typing import Literal

from kdmesh.offers import Config, ObjectiveOffer
from pydantic import Field


class _Margins(Config):
    beta: float = Field(0.1, gt=0, allow_inf_nan=False, description="what margins, in nats, are multiplied by")
    per_token: bool = Field(
        False, description="an answer's log-probability is the mean over its tokens, not their sum: length-normalised"
    )


class DPOConfig(_Margins):
    """Settings of `dpo`."""

    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of pairs whose answers are taken to be the wrong way round"
    )


class DistilledConfig(_Margins):
    """Settings of `dpo_distilled`."""

    distance: Literal["kl", "squared"] = Field(
        "kl", description="how margins are compared: kl, of the preferences that they stand for; or squared"
    )


OBJECTIVES = [
    ObjectiveOffer(
        "dpo",
        "kdmesh_preference.dpo:DPO",
        DPOConfig,
        "DPO: the chosen answer over the rejected one, by more than the reference that is the flow's source",
        "Rafailov et al., Direct Preference Optimization: Your Language Model is Secretly a Reward Model, 2023",
        needs=("labels", "pairs"),
        reduction="mean over pairs",
    ),
    ObjectiveOffer(
        "dpo_distilled",
        "kdmesh_preference.distilled:Distilled",
        DistilledConfig,
        "DPO with a teacher's margin between the two answers as the target, whichever of them is chosen",
        "after Fisch et al., Robust Preference Optimization through Reward Model Distillation, 2025",
        needs=("pairs",),
        reduction="mean over pairs",
    ),
]
