"""The offers of this package: reading this imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from kdmesh.filters import AnswerConfig
from kdmesh.offers import Config, ObjectiveOffer, TextRuleOffer
from kdmesh.strategies import Names
from pydantic import Field, model_validator


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


class RightOverWrongConfig(AnswerConfig):
    """Settings of `right_over_wrong`: those of the filter `answer`, and one more."""

    silent: Literal["out", "wrong"] = Field(
        "out", description="a text without an answer is in no pair; or is as good as a wrong one"
    )


class DeclaredConfig(Config):
    """Settings of `declared`."""

    chosen: Names = Field(description="the stream whose text is chosen; of several the first that says something")
    rejected: str = Field(description="the stream whose text is rejected")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.rejected in self.chosen:
            raise ValueError(f"{self.rejected!r} would be chosen over itself")
        if len(set(self.chosen)) < len(self.chosen):
            raise ValueError("a stream is named twice")
        return self


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

TEXT_RULES = [
    TextRuleOffer(
        "declared",
        "kdmesh_preference.declared:Declared",
        DeclaredConfig,
        "pairs in a declared order: the text of one stream over that of another",
        "after Chen et al., Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models, 2024",
        pairs="only",
    ),
    TextRuleOffer(
        "right_over_wrong",
        "kdmesh_preference.right_over_wrong:RightOverWrong",
        RightOverWrongConfig,
        "pairs of a right answer over a wrong one, of several agents or rounds",
        "after Pang et al., Iterative Reasoning Preference Optimization, 2024",
        pairs="only",
    ),
]
