"""What this package offers, by kdmesh's hooks. Reading it imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

import kdmesh
from kdmesh.offers import Config, ConsensusOffer, ModelOffer, ObjectiveOffer, StrategyOffer
from kdmesh.strategies import Names, Weight
from pydantic import Field

ONE = "Lan et al., Knowledge Distillation by On-the-Fly Native Ensemble, 2018"
OKDDIP = "Chen et al., Online Knowledge Distillation with Diverse Peers, 2020"
Width = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BranchedConfig(Config):
    """Settings of `branched`."""

    trunk: list[Width] = Field([64], description="units, or channels of images, of each shared layer")
    branch: list[Width] = Field([32], description="units, or channels of images, of each layer of a branch")
    branches: int = Field(3, ge=1, description="number of branches")


class AttentionConfig(Config):
    """Settings of `attention`."""

    reduction: int = Field(8, ge=1, description="queries and keys have the features' width over this, at least 1")


class TaughtKLConfig(Config):
    """Settings of `taught_kl`."""

    temperature: Positive = Field(3.0, description="softmax temperature T of both sides")
    share: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of the target's own cross-entropy")
    through: bool = Field(False, description="the KL's gradient reaches the target too; the published code stops it")
    t2_scale: bool = Field(True, description="multiply the KL by T²")


class OneConfig(Config):
    """Settings of `one`."""

    branches: Names = Field(description="agents, usually exits of one network; the first one carries the trunk")
    trunk: str = Field("trunk", description="layer of the first branch's network that the gate reads")
    temperature: Positive = Field(3.0, description="softmax temperature of the distillation")
    labels: float = Field(1.0, gt=0, allow_inf_nan=False, description="weight of the labels, of branches and of gate")
    weight: Positive = Field(1.0, description="weight of the distillation")
    through: bool = Field(False, description="gradients of the distillation reach the gate; the published code: no")
    stream: str = Field("train", description="stream of labels and knowledge")


class OkddipConfig(Config):
    """Settings of `okddip`."""

    peers: Names = Field(description="agents that teach each other, usually exits of one network")
    leader: str | None = Field(None, description="agent that learns from the mean of the peers; null: none")
    features: str = Field("body", description="layer of the features that attention reads; below a peer's exit")
    temperature: Positive = Field(3.0, description="softmax temperature of the distillation")
    labels: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of everyone's labels")
    weight: Weight = Field(1.0, description="weight of the distillation, or {start, end, epochs}")
    faithful: Literal["paper", "code"] = Field(
        "paper", description="mix predictions (paper), or logits (published code)"
    )
    stream: str = Field("train", description="stream of labels and knowledge")


MODELS = [
    ModelOffer(
        "branched",
        "kdmesh_gated.branched:Branched",
        BranchedConfig,
        "a trunk and branches that each end in logits; gives their mean, or by exits each one's own",
        ONE,
    )
]
CONSENSUS = [
    ConsensusOffer(
        "gate",
        "kdmesh_gated.gate:Gate",
        summary="weights by a small trained network that reads its inputs, usually a trunk's features",
        paper=ONE,
        stateful=True,
        trained=True,
        spaces=("logits",),
        inputs=True,
    ),
    ConsensusOffer(
        "attention",
        "kdmesh_gated.attention:Attention",
        AttentionConfig,
        "weights of each target by trained attention between the sources' features",
        OKDDIP,
        trained=True,
        inputs=True,
    ),
]
OBJECTIVES = [
    ObjectiveOffer(
        "taught_kl",
        "kdmesh_gated.taught_kl:TaughtKL",
        TaughtKLConfig,
        "forward KL from a target that learns from the labels itself",
        ONE,
        forms=("logits",),
        needs=("labels",),
        reduction="batchmean",
    )
]
STRATEGIES = [
    StrategyOffer(
        "one", "kdmesh_gated.one:One", OneConfig, "branches learn from their gated ensemble while it trains", ONE
    ),
    StrategyOffer(
        "okddip",
        "kdmesh_gated.okddip:Okddip",
        OkddipConfig,
        "peers teach each other by attention, and a leader by their mean",
        OKDDIP,
    ),
]


@kdmesh.hookimpl
def kdmesh_models() -> list[ModelOffer]:
    """The network with branches."""
    return MODELS


@kdmesh.hookimpl
def kdmesh_consensus() -> list[ConsensusOffer]:
    """The trained rules."""
    return CONSENSUS


@kdmesh.hookimpl
def kdmesh_objectives() -> list[ObjectiveOffer]:
    """The loss that trains its target too."""
    return OBJECTIVES


@kdmesh.hookimpl
def kdmesh_strategies() -> list[StrategyOffer]:
    """What draws the two methods."""
    return STRATEGIES
