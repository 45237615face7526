"""The built-in objectives as offers: reading this imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from kdmesh.offers import Config, ObjectiveOffer
from kdmesh.spec import Temperature


def _some_weight(weights: list[float]) -> list[float]:
    """Some class counts, or nothing would be learned."""
    if not any(weights):
        raise ValueError("every class has weight 0: nothing would be learned")
    return weights


BALANCED: Literal["balanced"] = "balanced"
"""Class weights ``n / (K n_c)`` for n samples that are learned, n_c of them of class c, one of K that have samples."""

ClassWeights = (
    Annotated[
        list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1), AfterValidator(_some_weight)
    ]
    | Literal["balanced"]
)


class TemperedConfig(Config):
    """Settings of every objective between distributions."""

    temperature: Temperature = Field(1.0, description="softmax temperature T of both sides")
    t2_scale: bool = Field(True, description="multiply by T², so that gradients keep their size at any temperature")

    def idle(self) -> dict[str, str]:
        """A factor of 1."""
        unscaled = not self.t2_scale and self.temperature == 1
        return {"t2_scale": "at temperature 1 there is nothing to scale"} if unscaled else {}


class CrossEntropyConfig(TemperedConfig):
    """Settings of `ce`: smoothing for labels, temperature for soft targets."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label spread evenly over all classes")
    class_weights: ClassWeights | None = Field(
        None,
        description="labels: how much a sample counts, by its class, in the order that `check` prints; or balanced: "
        "the inverse of its share of what is learned",
    )


class JSDConfig(TemperedConfig):
    """Settings of `jsd`."""

    beta: float = Field(0.5, ge=0, le=1, description="share of the target in the mixture; 0 forward KL, 1 reverse KL")


class SkewedConfig(TemperedConfig):
    """Settings of `skewed_kl` and `skewed_reverse_kl`."""

    skew: float = Field(0.1, ge=0, lt=1, description="share of the first distribution in the second; 0 is the plain KL")

    def idle(self) -> dict[str, str]:
        """Nothing is mixed in."""
        return super().idle() | ({} if self.skew else {"skew": "this is the plain KL"})


class DistanceConfig(Config):
    """Settings of `mse` and `mae`."""

    per_element: bool = Field(False, description="average over classes too, instead of summing over them")


class PrototypeConfig(Config):
    """Settings of `prototype`."""

    per_element: bool = Field(False, description="average over the layer too, instead of summing over it")


class BinaryCrossEntropyConfig(Config):
    """Settings of `bce`."""

    per_element: bool = Field(False, description="average over labels too, instead of summing over them")


class BinaryKLConfig(Config):
    """Settings of `binary_kl`."""

    temperature: Temperature = Field(1.0, description="temperature T of both sides: sigmoid(z / T)")
    t2_scale: bool = Field(True, description="multiply by T², so that gradients keep their size at any temperature")

    def idle(self) -> dict[str, str]:
        """A factor of 1."""
        unscaled = not self.t2_scale and self.temperature == 1
        return {"t2_scale": "at temperature 1 there is nothing to scale"} if unscaled else {}


class UniversalConfig(Config):
    """Settings of `uld`."""

    temperature: Temperature = Field(1.0, description="softmax temperature T of both sides")


class ListConfig(Config):
    """Settings of objectives over the candidates of a query."""

    temperature: Temperature = Field(1.0, description="softmax temperature T of the scores")


class HintConfig(Config):
    """Settings of `hint`."""

    adapter: Literal["auto", "always"] = Field(
        "auto", description="a trainable adapter only where shapes differ, or always"
    )


class AttentionConfig(Config):
    """Settings of `attention`."""

    p: int = Field(2, ge=1, description="power of the activations; higher ones look at the strongest places")


ROOM = "kdmesh.builtin.objectives"
HINTON = "Hinton et al., Distilling the Knowledge in a Neural Network, 2015"
KO = "Ko et al., DistiLLM: Towards Streamlined Distillation for Large Language Models, 2024"
OBJECTIVES = [
    ObjectiveOffer(
        "ce",
        f"{ROOM}.cross_entropy:CrossEntropy",
        CrossEntropyConfig,
        "cross-entropy with labels or a soft target",
        HINTON,
        forms=("labels", "probs", "logits"),
        tempered=True,
        forms_of={
            **dict.fromkeys(("label_smoothing", "class_weights"), ("labels",)),
            **dict.fromkeys(("temperature", "t2_scale"), ("probs", "logits")),
        },
        reduction="batchmean",
        linear=True,
        rowwise=True,
    ),
    ObjectiveOffer(
        "kl",
        f"{ROOM}.forward_kl:ForwardKL",
        TemperedConfig,
        "forward KL, from target to student: covers all the target's modes",
        HINTON,
        tempered=True,
        reduction="batchmean",
        linear=True,
        rowwise=True,
    ),
    ObjectiveOffer(
        "reverse_kl",
        f"{ROOM}.reverse_kl:ReverseKL",
        TemperedConfig,
        "reverse KL, from student to target: keeps to the target's main modes",
        "Gu et al., MiniLLM: Knowledge Distillation of Large Language Models, 2023",
        tempered=True,
        reduction="batchmean",
        rowwise=True,
    ),
    ObjectiveOffer(
        "jsd",
        f"{ROOM}.jsd:JSD",
        JSDConfig,
        "generalised Jensen-Shannon divergence, in TRL's convention",
        "Agarwal et al., On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes, 2023",
        tempered=True,
        reduction="batchmean",
        rowwise=True,
    ),
    ObjectiveOffer(
        "skewed_kl",
        f"{ROOM}.skewed_kl:SkewedKL",
        SkewedConfig,
        "forward KL to a student mixed with its target: steadier gradients",
        KO,
        tempered=True,
        reduction="batchmean",
        rowwise=True,
    ),
    ObjectiveOffer(
        "skewed_reverse_kl",
        f"{ROOM}.skewed_reverse_kl:SkewedReverseKL",
        SkewedConfig,
        "reverse KL to a target mixed with the student: steadier gradients",
        KO,
        tempered=True,
        reduction="batchmean",
        rowwise=True,
    ),
    ObjectiveOffer(
        "total_variation",
        f"{ROOM}.total_variation:TotalVariation",
        TemperedConfig,
        "half the absolute distance between distributions: bounded and symmetric",
        "Wen et al., f-Divergence Minimization for Sequence-Level Knowledge Distillation, 2023",
        tempered=True,
        reduction="batchmean",
        rowwise=True,
    ),
    ObjectiveOffer(
        "mse",
        f"{ROOM}.mse:MSE",
        DistanceConfig,
        "squared distance between answers",
        "Ba and Caruana, Do Deep Nets Really Need to be Deep?, 2014",
        forms=("logits", "labels"),
        labels=("values",),
        reduction="batchmean",
        rowwise=True,
    ),
    ObjectiveOffer(
        "mae",
        f"{ROOM}.mae:MAE",
        DistanceConfig,
        "absolute distance between answers",
        "Li and Wang, FedMD: Heterogenous Federated Learning via Model Distillation, 2019",
        forms=("logits", "labels"),
        labels=("values",),
        reduction="batchmean",
        rowwise=True,
    ),
    ObjectiveOffer(
        "bce",
        f"{ROOM}.binary_cross_entropy:BinaryCrossEntropy",
        BinaryCrossEntropyConfig,
        "binary cross-entropy of labels that hold or not, each on its own",
        forms=("labels",),
        labels=("indicators",),
        reduction="batchmean",
    ),
    ObjectiveOffer(
        "binary_kl",
        f"{ROOM}.binary_kl:BinaryKL",
        BinaryKLConfig,
        "forward KL label by label, from target to student",
        "Yang et al., Multi-Label Knowledge Distillation, 2023",
        forms=("logits", "marginals"),
        tempered=True,
        reduction="batchmean",
    ),
    ObjectiveOffer(
        "hint",
        f"{ROOM}.hint:Hint",
        HintConfig,
        "regression of a hidden layer through a trainable adapter",
        "Romero et al., FitNets: Hints for Thin Deep Nets, 2014",
        reads="hidden",
        forms=("hidden",),
        reduction="mean over elements",
    ),
    ObjectiveOffer(
        "prototype",
        f"{ROOM}.prototype:Prototype",
        PrototypeConfig,
        "distance of a hidden layer to the mean that sources have of it for the label's class",
        "Tan et al., FedProto: Federated Prototype Learning across Heterogeneous Clients, 2022",
        reads="hidden",
        forms=("hidden",),
        needs=("labels",),
        aligned=False,
    ),
    ObjectiveOffer(
        "attention",
        f"{ROOM}.attention_transfer:AttentionTransfer",
        AttentionConfig,
        "agreement on where feature maps are strong",
        "Zagoruyko and Komodakis, Paying More Attention to Attention, 2017",
        reads="hidden",
        forms=("hidden",),
        reduction="mean over elements",
    ),
    ObjectiveOffer(
        "attention_mse",
        f"{ROOM}.attention_mse:AttentionMSE",
        summary="transformers attend to the same tokens, by squared distance",
        paper="Jiao et al., TinyBERT: Distilling BERT for Natural Language Understanding, 2020",
        reads="hidden",
        forms=("hidden",),
        reduction="mean over elements",
    ),
    ObjectiveOffer(
        "attention_kl",
        f"{ROOM}.attention_kl:AttentionKL",
        summary="transformers attend to the same tokens, by the target's divergence from the student",
        paper="Wang et al., MiniLM: Deep Self-Attention Distillation, 2020",
        reads="hidden",
        forms=("hidden",),
        reduction="mean over elements",
    ),
    ObjectiveOffer(
        "info_nce",
        f"{ROOM}.info_nce:InfoNCE",
        ListConfig,
        "cross-entropy over the candidates of a list, of labels that say how relevant each is",
        "Van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018",
        forms=("labels",),
        labels=("relevance",),
        reduction="batchmean",
    ),
    ObjectiveOffer(
        "margin_mse",
        f"{ROOM}.margin_mse:MarginMSE",
        summary="squared distance between margins of relevant candidates over others",
        paper="Hofstätter et al., Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge "
        "Distillation, 2020",
        forms=("logits",),
        labels=("relevance",),
        needs=("labels",),
        reduction="batchmean",
    ),
    ObjectiveOffer(
        "in_batch",
        f"{ROOM}.in_batch:InBatch",
        ListConfig,
        "a query against the candidates of the whole batch, from embeddings; of labels or of a teacher",
        "Karpukhin et al., Dense Passage Retrieval for Open-Domain Question Answering, 2020",
        reads="hidden",
        forms=("hidden", "labels"),
        labels=("relevance",),
        reduction="mean over elements",
    ),
    ObjectiveOffer(
        "uld",
        f"{ROOM}.universal:Universal",
        UniversalConfig,
        "different vocabularies, by how probable their first, second ... tokens are",
        "Boizard et al., Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs, 2024",
        tempered=True,
        needs=("spans",),
        reduction="batchmean",
    ),
    ObjectiveOffer(
        "span",
        f"{ROOM}.aligned:Aligned",
        TemperedConfig,
        "different tokenizers, by the probabilities that they give the same spans of text",
        tempered=True,
        needs=("spans", "labels", "tokens"),
        reduction="batchmean",
    ),
]
