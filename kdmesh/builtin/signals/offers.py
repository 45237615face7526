"""What the built-in kinds of signal are called; imports none of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdmesh.offers import Config, SignalOffer
from kdmesh.spec import Temperature


class TopKConfig(Config):
    """Settings of `top_k`."""

    k: int = Field(ge=1, description="how many outputs of each row cross, the likeliest")
    tail: Literal["spread", "bucket", "renormalise"] = Field(
        "spread",
        description="the mass of all others, in the loss: spread evenly over them; bucket, one outcome on both sides; "
        "or renormalise, left out on both sides",
    )

    def whole(self, outputs: int) -> dict[str, str]:
        """All are the likeliest."""
        said = f"all {outputs:,} outputs cross, and their places beside them, which takes more bytes than logits"
        return {"k": said} if self.k == outputs else {}

    def only_compared(self) -> str:
        """Rows with a tail that is not spread are none over all outputs."""
        return "" if self.tail == "spread" else f"with `tail: {self.tail}` it is no distribution over all outputs"


class ReaderTopKConfig(TopKConfig):
    """Settings of `reader_top_k`."""

    k: int = Field(ge=1, description="how many outputs of each row cross: those that the reader finds likeliest")

    def whole(self, outputs: int) -> dict[str, str]:
        """All are asked for."""
        said = f"all {outputs:,} outputs are asked for, and cross with their places beside them: more than logits"
        return {"k": said} if self.k == outputs else {}


class SampledConfig(Config):
    """Settings of `sampled`."""

    draws: int = Field(ge=1, description="how many outputs of each row are drawn, with equal shares")
    k: int = Field(0, ge=0, description="how many stand with their own probability, the likeliest; others are drawn")
    seed: int = Field(0, ge=0, lt=2**63, description="another seed, another draw of the same answers")
    temperature: Temperature = Field(1.0, description="softmax temperature T that they are drawn at: the objective's")

    def whole(self, outputs: int) -> dict[str, str]:
        """None is left to be drawn."""
        return {"k": f"all {outputs:,} outputs stand as they are, and none is drawn"} if self.k == outputs else {}


SIGNALS = [
    SignalOffer("logits", "kdmesh.builtin.signals.plain:Plain", summary="a model's outputs", form="logits"),
    SignalOffer(
        "hidden",
        "kdmesh.builtin.signals.plain:Plain",
        summary="the output of the layer that `tap` names",
        reads="hidden",
        form="hidden",
    ),
    SignalOffer(
        "class_means",
        "kdmesh.builtin.signals.class_means:ClassMeans",
        summary="the mean of the layer that `tap` names for each class, and nothing of single samples",
        paper="Tan et al., FedProto: Federated Prototype Learning across Heterogeneous Clients, 2022",
        reads="hidden",
        form="hidden",
        needs=("labels", "classes"),
        aligned=False,
    ),
    SignalOffer(
        "votes",
        "kdmesh.builtin.signals.votes:Votes",
        summary="the likeliest class alone: nothing else leaves the agent's host",
        paper="Papernot et al., Semi-supervised Knowledge Transfer for Deep Learning from Private Training Data, 2017",
    ),
    SignalOffer(
        "top_k",
        "kdmesh.builtin.signals.top_k:TopK",
        TopKConfig,
        summary="the k likeliest outputs, and the mass of all others: spread, one bucket, or left out",
        form="logits",
        lazy=True,
        sparse=True,
    ),
    SignalOffer(
        "reader_top_k",
        "kdmesh.builtin.signals.reader_top_k:ReaderTopK",
        ReaderTopKConfig,
        summary="the k outputs that the reader finds likeliest, as the source sees them in this step, and all others",
        form="logits",
        lazy=True,
        needs=("asked",),
    ),
    SignalOffer(
        "sampled",
        "kdmesh.builtin.signals.sampled:Sampled",
        SampledConfig,
        "a few outputs of each row, drawn: on average the whole distribution, also its tail",
        "Anshumann et al., Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs, 2025",
        lazy=True,
        estimate=True,
        sparse=True,
    ),
]
