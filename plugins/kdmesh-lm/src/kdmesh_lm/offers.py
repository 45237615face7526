"""The offers of this package: reading this imports no torch."""

from __future__ import annotations

from kdmesh.offers import Config, GateOffer, ObjectiveOffer
from pydantic import Field


class _Tempered(Config):
    temperature: float = Field(1.0, ge=1e-6, le=1e6, description="softmax temperature T of both sides")
    t2_scale: bool = Field(True, description="multiply by T²")


class AdaptiveKLConfig(_Tempered):
    """Settings of `adaptive_kl`."""

    mu: float = Field(0.5, gt=0, lt=1, description="mass of the target's head: its fewest likeliest classes with it")


class EntropyAwareKLConfig(_Tempered):
    """Settings of `entropy_aware_kl`."""

    threshold: float = Field(ge=0, allow_inf_nan=False, description="entropy of the target, in nats, that is high")
    forward: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of the forward KL where it is higher")


class MassWeightedKLConfig(_Tempered):
    """Settings of `mass_weighted_kl`."""

    k: int = Field(16, ge=1, description="likeliest classes of the student on which the target's mass is summed")


class AdaptiveShareConfig(Config):
    """Settings of `adaptive_share`."""

    start: float = Field(0.0, ge=0, le=1, description="probability at first that the agent writes a batch")
    increase: float = Field(0.1, gt=0, le=1, description="what is added to it each time that the loss has grown")
    tolerance: float = Field(
        0.1, ge=0, allow_inf_nan=False, description="least growth of the loss on validation, in nats a token"
    )

    def idle(self) -> dict[str, str]:
        """It cannot grow."""
        return {"start": "every batch is written, and nothing is left to grow"} if self.start == 1 else {}


GATES = [
    GateOffer(
        "adaptive_share",
        "kdmesh_lm.adaptive_share:AdaptiveShare",
        AdaptiveShareConfig,
        "a share of written batches that grows as the loss on validation does (DistiLLM)",
        "Ko et al., DistiLLM: Towards Streamlined Distillation for Large Language Models, 2024",
        needs=("metrics", "measured_step"),
    ),
]
OBJECTIVES = [
    ObjectiveOffer(
        "adaptive_kl",
        "kdmesh_lm.adaptive_kl:AdaptiveKL",
        AdaptiveKLConfig,
        "AKL: forward and reverse KL, by how far head and tail of the target are off",
        "Wu et al., Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models, 2024",
        tempered=True,
        reduction="batchmean",
    ),
    ObjectiveOffer(
        "entropy_aware_kl",
        "kdmesh_lm.entropy_aware_kl:EntropyAwareKL",
        EntropyAwareKLConfig,
        "reverse KL, and forward KL too where the target is unsure",
        "Jin et al., Entropy-Aware On-Policy Distillation of Language Models, 2026",
        tempered=True,
        reduction="batchmean",
    ),
    ObjectiveOffer(
        "mass_weighted_kl",
        "kdmesh_lm.mass_weighted_kl:MassWeightedKL",
        MassWeightedKLConfig,
        "reverse KL, each row by the target's mass on the student's likeliest classes",
        "after Wang et al., Not All Disagreement Is Learnable: Token Teachability in On-Policy Distillation, 2026",
        tempered=True,
        reduction="batchmean",
    ),
]
