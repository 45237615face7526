"""The offers of this package: reading this imports no torch."""

from __future__ import annotations

from typing import Literal

from kdmesh.offers import Config, ConsensusOffer, ObjectiveOffer
from pydantic import Field


class DISTConfig(Config):
    """Settings of `dist`."""

    inter: float = Field(2.0, ge=0, allow_inf_nan=False, description="weight of the correlation of each sample's row")
    intra: float = Field(2.0, ge=0, allow_inf_nan=False, description="weight of the correlation of each class' column")
    temperature: float = Field(1.0, ge=1e-6, le=1e6, description="softmax temperature T of both sides")
    t2_scale: bool = Field(True, description="multiply by T², as the published code does")


class StandardisedKLConfig(Config):
    """Settings of `standardised_kl`."""

    temperature: float = Field(2.0, ge=1e-6, le=1e6, description="base temperature, after standardising")
    t2_scale: bool = Field(True, description="multiply by T²")
    faithful: Literal["paper", "code"] = Field(
        "paper", description="deviation of a row: over C classes (paper) or over C - 1 (published code)"
    )


class DKDConfig(Config):
    """Settings of `dkd`."""

    alpha: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of the true class against the rest")
    beta: float = Field(8.0, ge=0, allow_inf_nan=False, description="weight of the distribution over the other classes")
    temperature: float = Field(4.0, ge=1e-6, le=1e6, description="softmax temperature T of both sides")
    t2_scale: bool = Field(True, description="multiply by T²")


class LinearLogitsConfig(Config):
    """Settings of `kdcl_linear`."""

    iterations: int = Field(16, ge=1, le=1000, description="exchanges of weight between two sources; two need only one")


KDCL = "Guo et al., Online Knowledge Distillation via Collaborative Learning, 2020"
OBJECTIVES = [
    ObjectiveOffer(
        "dkd",
        "kdmesh_logit.dkd:DKD",
        DKDConfig,
        "the true class against the rest, and the rest among themselves, weighted apart",
        "Zhao et al., Decoupled Knowledge Distillation, 2022",
        tempered=True,
        needs=("labels",),
        reduction="batchmean",
    ),
    ObjectiveOffer(
        "dist",
        "kdmesh_logit.dist:DIST",
        DISTConfig,
        "correlation of outputs within each sample and within each class",
        "Huang et al., Knowledge Distillation from A Stronger Teacher, 2022",
        tempered=True,
    ),
    ObjectiveOffer(
        "standardised_kl",
        "kdmesh_logit.standardised_kl:StandardisedKL",
        StandardisedKLConfig,
        "forward KL between logits of mean 0 and deviation 1",
        "Sun et al., Logit Standardization in Knowledge Distillation, 2024",
        forms=("logits",),
        reduction="batchmean",
    ),
]
CONSENSUS = [
    ConsensusOffer(
        "kdcl_min_logit",
        "kdmesh_logit.min_logit:MinLogit",
        summary="each class' smallest margin over the true class, over all sources",
        paper=KDCL,
        needs_labels=True,
        spaces=("logits",),
    ),
    ConsensusOffer(
        "kdcl_linear",
        "kdmesh_logit.linear_logits:LinearLogits",
        LinearLogitsConfig,
        "the mixture of logits with the lowest cross-entropy on the label, per sample",
        KDCL,
        needs_labels=True,
        spaces=("logits",),
    ),
]
