"""The offers of this package: reading this imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from kdmesh.offers import Config, ObjectiveOffer
from pydantic import Field, model_validator


class PolicyGradientConfig(Config):
    """Settings of `policy_gradient`."""

    std: Literal["sample", "population", "none"] = Field(
        "sample", description="divide by the standard deviation of a group's rewards: of n - 1, of n, or not at all"
    )
    eps: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="is added to that deviation; 1e-4 by default"
    )
    average: Literal["text", "token", "constant"] = Field(
        "text", description="mean over texts of each one's mean over tokens; over all tokens; or of sums by `length`"
    )
    length: int | None = Field(None, ge=1, description="constant: what each text's sum over its tokens is divided by")
    clip: float | None = Field(
        None, gt=0, lt=1, description="bound of 1 - p / p_written, where texts are older than an update"
    )
    clip_high: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="the same of p / p_written - 1; by default `clip`"
    )
    temperature: float = Field(1.0, ge=1e-6, le=1e6, description="of the probabilities: as texts are drawn")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.clip_high is not None and self.clip is None:
            raise ValueError("`clip_high` is the upper bound where `clip` is the lower one, which is not given")
        if (self.length is None) == (self.average == "constant"):
            raise ValueError("`length` goes with `average: constant`, and `average: constant` with a `length`")
        if self.std == "none" and self.eps is not None:
            raise ValueError("`eps` is added to a deviation, and with `std: none` nothing is divided by one")
        return self


OBJECTIVES = [
    ObjectiveOffer(
        "policy_gradient",
        "kdmesh_rl.policy_gradient:PolicyGradient",
        PolicyGradientConfig,
        "rewards of texts against those of others to the same prompt (GRPO), clipped where texts are older",
        "Shao et al., DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models, 2024",
        forms=("labels",),
        needs=("text", "group", "reward"),
        needs_of={"clip": ("written",)},
        reduction="by `average`",
    ),
]
