"""The offers of this package: reading this imports no torch."""

from __future__ import annotations

from typing import Literal

from kdmesh.offers import Config, ObjectiveOffer
from pydantic import Field


class RKDConfig(Config):
    """Settings of `rkd`."""

    distance: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of the distances between samples")
    angle: float = Field(2.0, ge=0, allow_inf_nan=False, description="weight of the angles that samples form")
    faithful: Literal["paper", "code"] = Field(
        "paper", description="average over distinct samples (paper), or over all B² and B³ entries (published code)"
    )


class CRDConfig(Config):
    """Settings of `crd`."""

    dim: int = Field(128, ge=1, description="numbers in an embedding, on both sides")
    count: int = Field(16384, ge=1, description="negatives per sample; fewer where the stream has no more to offer")
    temperature: float = Field(
        0.07, gt=0, allow_inf_nan=False, description="of similarities; the paper has 0.1 on CIFAR-100, 0.07 on ImageNet"
    )
    momentum: float = Field(0.5, ge=0, lt=1, description="share of the old entry when the memory is updated")
    negatives: Literal["other_class", "other_sample"] = Field(
        "other_class", description="samples that are drawn as negatives: of other classes, or all others"
    )
    faithful: Literal["paper", "code"] = Field(
        "code", description="the published code's critic, divided by a constant of the first batch, or the paper's"
    )


class MiniLMConfig(Config):
    """Settings of `minilm`."""

    heads: int = Field(12, ge=1, description="relation heads that the last axis is split into, on both sides")


OBJECTIVES = [
    ObjectiveOffer(
        "sp",
        "kdmesh_relational.sp:SP",
        summary="similarity between the samples of a batch",
        paper="Tung and Mori, Similarity-Preserving Knowledge Distillation, 2019",
        reads="hidden",
        forms=("hidden",),
    ),
    ObjectiveOffer(
        "rkd",
        "kdmesh_relational.rkd:RKD",
        RKDConfig,
        "distances and angles between the samples of a batch",
        "Park et al., Relational Knowledge Distillation, 2019",
        reads="hidden",
        forms=("hidden",),
    ),
    ObjectiveOffer(
        "crd",
        "kdmesh_relational.crd:CRD",
        CRDConfig,
        "each sample told from others in a common embedding, by a memory of all samples",
        "Tian, Krishnan and Isola, Contrastive Representation Distillation, 2020",
        reads="hidden",
        forms=("hidden",),
        needs=("labels", "ids"),
    ),
    ObjectiveOffer(
        "minilm",
        "kdmesh_relational.minilm:MiniLM",
        MiniLMConfig,
        "attention of tokens to each other within one kind of vectors: queries, keys or values",
        "Wang et al., MiniLMv2: Multi-Head Self-Attention Relation Distillation, 2021",
        reads="hidden",
        forms=("hidden",),
    ),
]
