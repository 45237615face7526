"""The built-in consensus rules as offers: reading this imports no torch."""

from __future__ import annotations

from math import ceil, floor
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from kdmesh.offers import AGE, Config, ConsensusOffer


class WeightedConfig(Config):
    """Settings of `weighted`."""

    weights: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="one positive weight per source, in their order; divided by their sum"
    )


class ThresholdVoteConfig(Config):
    """Settings of `threshold_vote`."""

    votes: int = Field(ge=1, description="sources that must vote for the winner; samples with fewer have no answer")

    def idle(self) -> dict[str, str]:
        """One vote is always there."""
        return {"votes": "every sample is answered, as by vote"} if self.votes == 1 else {}


class MedianConfig(Config):
    """No settings."""

    def same_as(self, sources: int) -> str:
        """The middle of two is their mean."""
        return "mean" if sources == 2 else ""


class TrimmedMeanConfig(Config):
    """Settings of `trimmed_mean`."""

    trim: float = Field(
        0.25, ge=0, lt=0.5, description="share of the sources left out at each end, rounded down: to one at least"
    )

    def cut(self, sources: int) -> int:
        """How many of so many sources are left out at each end."""
        return floor(self.trim * sources + 1e-9)  # 0.29 * 100 is 28.999...: the floor stays at what was meant

    def idle(self) -> dict[str, str]:
        """Nobody is left out."""
        return {} if self.trim else {"trim": "no source is left out, as by mean"}

    def unused(self, sources: int) -> dict[str, str]:
        """The share of so many sources is less than one of them."""
        if not self.trim or self.cut(sources):
            return {}
        least = ceil(100 / sources) / 100
        fits = f"trim: {least:g}, which leaves out one at each end, or " if least < 0.5 else ""
        return {"trim": f"{fits}rule: mean, or median"}


class GeometricMedianConfig(Config):
    """Settings of `geometric_median`."""

    iterations: int = Field(32, ge=1, le=1000, description="Weiszfeld's steps, the same number for every sample")
    eps: float = Field(1e-6, ge=1e-12, le=1, description="smallest distance to a source that counts")


class EntropyReductionConfig(Config):
    """Settings of `era`."""

    sharpening: float = Field(
        0.1, gt=0, le=1, description="T of the softmax over the mean probabilities; the smaller, the sharper"
    )


class EigenFilterConfig(Config):
    """Settings of `eigen_filter`."""

    share: float = Field(
        0.4, gt=0, lt=0.5, description="share of the sources that may lie; half of it, rounded down, is left out twice"
    )

    def cut(self, sources: int) -> int:
        """How many of so many sources are left out in one pass."""
        return floor(self.share * sources / 2 + 1e-9)  # as of trimmed_mean, the floor stays at what was meant

    def unused(self, sources: int) -> dict[str, str]:
        """Half of the share of so many sources is less than one of them."""
        if self.cut(sources):
            return {}
        least = ceil(200 / sources) / 100
        fits = f"share: {least:g}, which leaves out one in a pass, or " if least < 0.5 else ""
        return {"share": f"{fits}rule: mean, or median"}


class DropWorstConfig(Config):
    """Settings of `drop_worst`."""

    count: int = Field(1, ge=1, description="sources that are left out, those with the largest errors on validation")


class StalenessConfig(Config):
    """Settings of `staleness`."""

    exponent: float = Field(gt=0, description="a of (1 + age)^-a: 0.5 halves the say of who was away for three rounds")


class ExpGuardConfig(Config):
    """Settings of `expguard`."""

    step: float = Field(1.0, gt=0, le=1000, description="how fast outliers lose their say")
    centre: Literal["geometric_median", "median", "mean"] = Field(
        "geometric_median", description="from which outliers are measured"
    )


Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class GNMaxConfig(Config):
    """Settings of `gnmax`."""

    sigma: Deviation = Field(description="standard deviation of the noise on each class's count, in votes")


class ConfidentGNMaxConfig(Config):
    """Settings of `confident_gnmax`."""

    threshold: float = Field(
        gt=0, allow_inf_nan=False, description="votes that one class must have, noise included, for an answer"
    )
    sigma1: Deviation = Field(description="standard deviation of the noise by which that is decided, in votes")
    sigma2: Deviation = Field(description="standard deviation of the noise by which the class is, in votes")


class GaussianProbabilitiesConfig(Config):
    """Settings of `gaussian_probabilities`."""

    sigma: Deviation = Field(description="standard deviation of the noise on each class's probability")


class UHCConfig(Config):
    """Settings of `uhc`."""

    iterations: int = Field(32, ge=1, le=1000, description="Newton's steps, the same number for every sample")


class RouteConfig(Config):
    """Settings of `route`."""

    model_config = ConfigDict(coerce_numbers_to_str=True, populate_by_name=True)

    column: str = Field(description="column of the data by which samples are routed")
    to: dict[str, str] = Field(min_length=1, description="the source for each value of the column")
    else_: str | None = Field(
        None, alias="else", description="the source for every other value, or `mean` for all alike; none: refused"
    )

    def named_sources(self) -> dict[str, str]:
        """The sources of all routes."""
        other = {} if self.else_ in (None, "mean") else {"else": str(self.else_)}
        return {f"to.{value}": source for value, source in self.to.items()} | other


ROOM = "kdmesh.builtin.consensus"
WEIGHTS = ("probs", "marginals", "logits", "loss")  # rules that give a weight per source
CLASSES = ("probs", "logits", "loss")  # the same, of rules that ask how sure sources are of classes
VALUES = ("probs", "marginals", "logits")
ANY = ("classes", "values", "indicators", "relevance")  # what is combined may be answers about
SCORES = ("classes", "relevance")  # of which a softmax makes probabilities
PATE = "Papernot et al., Scalable Private Learning with PATE, 2018"
YIN = "Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, 2018"
CONSENSUS = [
    ConsensusOffer(
        "mean",
        f"{ROOM}.mean:Mean",
        summary="every source has the same weight",
        paper="Hinton et al., Distilling the Knowledge in a Neural Network, 2015",
        spaces=(*WEIGHTS, "weights"),
        answers=ANY,
        neutral=True,
    ),
    ConsensusOffer(
        "weighted",
        f"{ROOM}.weighted:Weighted",
        WeightedConfig,
        "fixed weights, one per source",
        spaces=(*WEIGHTS, "weights"),
        answers=ANY,
        neutral=True,
    ),
    ConsensusOffer(
        "staleness",
        f"{ROOM}.staleness:Staleness",
        StalenessConfig,
        "last answers of parties that are away have smaller weights, the longer the smaller",
        paper="Xie et al., Asynchronous Federated Optimization, 2019",
        spaces=("probs", "marginals", "logits"),
        answers=ANY,
        needs=(AGE,),
        neutral=True,
    ),
    ConsensusOffer(
        "inverse_variance",
        f"{ROOM}.inverse_variance:InverseVariance",
        summary="sources with smaller validation errors have larger weights, by value",
        paper="Bates and Granger, The Combination of Forecasts, 1969",
        spaces=("logits",),
        answers=("values",),
        needs_errors=True,
        neutral=True,
    ),
    ConsensusOffer(
        "drop_worst",
        f"{ROOM}.drop_worst:DropWorst",
        DropWorstConfig,
        "the mean without the sources that err most on validation",
        paper="Lin et al., Ensemble Distillation for Robust Model Fusion in Federated Learning, 2020",
        answers=("classes", "values"),
        needs_errors=True,
        neutral=True,
    ),
    ConsensusOffer(
        "entropy",
        f"{ROOM}.entropy:Entropy",
        summary="certain sources have larger weights, per sample",
        paper="Kwon et al., Adaptive Knowledge Distillation Based on Entropy, 2020",
        spaces=CLASSES,
        answers=SCORES,
        neutral=True,
    ),
    ConsensusOffer(
        "confidence",
        f"{ROOM}.confidence:Confidence",
        summary="sources that are right by the label have larger weights, per sample (CA-MKD)",
        paper="Zhang et al., Confidence-Aware Multi-Teacher Knowledge Distillation, 2022",
        needs_labels=True,
        spaces=CLASSES,
        neutral=True,
    ),
    ConsensusOffer(
        "lowest_ce",
        f"{ROOM}.lowest_ce:LowestCE",
        summary="the source that is most right by the label, per sample",
        paper="Guo et al., Online Knowledge Distillation via Collaborative Learning, 2020",
        needs_labels=True,
        spaces=CLASSES,
        neutral=True,
    ),
    ConsensusOffer(
        "vote",
        f"{ROOM}.vote:Vote",
        summary="plurality of the sources' classes, as a one-hot target",
        paper="Papernot et al., Semi-supervised Knowledge Transfer for Deep Learning from Private Training Data, 2017",
        spaces=("probs",),
        answers=SCORES,
    ),
    ConsensusOffer(
        "threshold_vote",
        f"{ROOM}.threshold_vote:ThresholdVote",
        ThresholdVoteConfig,
        "plurality vote that answers only where enough sources agree",
        PATE,
        spaces=("probs",),
        answers=SCORES,
        abstains=True,
    ),
    ConsensusOffer(
        "median",
        f"{ROOM}.median:Median",
        MedianConfig,
        summary="median of each class; holds against fewer than half wrong sources",
        paper=YIN,
        spaces=(*VALUES, "weights"),
        answers=ANY,
        neutral=True,
    ),
    ConsensusOffer(
        "trimmed_mean",
        f"{ROOM}.trimmed_mean:TrimmedMean",
        TrimmedMeanConfig,
        "mean of each class without its extremes",
        YIN,
        spaces=(*VALUES, "weights"),
        answers=ANY,
        neutral=True,
    ),
    ConsensusOffer(
        "geometric_median",
        f"{ROOM}.geometric_median:GeometricMedian",
        GeometricMedianConfig,
        "the point nearest to all sources together",
        "Pillutla et al., Robust Aggregation for Federated Learning, 2022",
        spaces=(*VALUES, "weights"),
        answers=ANY,
        neutral=True,
    ),
    ConsensusOffer(
        "eigen_filter",
        f"{ROOM}.eigen_filter:EigenFilter",
        EigenFilterConfig,
        "mean without those that are far out where sources differ most (Cronus)",
        "Chang et al., Cronus: Robust and Heterogeneous Collaborative Learning with Black-Box Knowledge Transfer, 2019",
        spaces=("probs",),
        neutral=True,
    ),
    ConsensusOffer(
        "expguard",
        f"{ROOM}.expguard:ExpGuard",
        ExpGuardConfig,
        "sources that were far from the middle, now or in earlier rounds, have less say",
        "Roux et al., On the Byzantine-Resilience of Distillation-Based Federated Learning, 2024",
        spaces=("probs",),
        stateful=True,
        neutral=True,
    ),
    ConsensusOffer(
        "gnmax",
        f"{ROOM}.gnmax:GNMax",
        GNMaxConfig,
        "the class with most votes, noise included; on its party's privacy account (PATE)",
        PATE,
        spaces=("probs",),
        abstains=True,
        releases="gnmax",
    ),
    ConsensusOffer(
        "confident_gnmax",
        f"{ROOM}.confident_gnmax:ConfidentGNMax",
        ConfidentGNMaxConfig,
        "the same where enough votes agree, noise included, and else no answer",
        PATE,
        spaces=("probs",),
        abstains=True,
        releases="confident_gnmax",
    ),
    ConsensusOffer(
        "gaussian_probabilities",
        f"{ROOM}.gaussian_probabilities:GaussianProbabilities",
        GaussianProbabilitiesConfig,
        "mean probabilities with noise on each; on its party's privacy account",
        "Dwork and Roth, The Algorithmic Foundations of Differential Privacy, 2014",
        spaces=("probs",),
        abstains=True,
        releases="gaussian_probabilities",
    ),
    ConsensusOffer(
        "era",
        f"{ROOM}.era:EntropyReduction",
        EntropyReductionConfig,
        "mean of probabilities, sharpened (DS-FL); harms where sources know few classes each",
        "Itahara et al., Distillation-Based Semi-Supervised Federated Learning, 2021",
        spaces=("probs",),
    ),
    ConsensusOffer(
        "route",
        f"{ROOM}.route:Route",
        RouteConfig,
        "specialists: a column of the data chooses the source for each sample",
        spaces=WEIGHTS,
        needs_column="column",
        answers=ANY,
        neutral=True,
    ),
    ConsensusOffer(
        "concat",
        f"{ROOM}.concat:Concat",
        summary="sources that know different classes, side by side: softmax of the joined logits",
        spaces=("probs", "logits"),
        partial=True,
        neutral=True,
    ),
    ConsensusOffer(
        "uhc",
        f"{ROOM}.uhc:UHC",
        UHCConfig,
        "sources that know different classes, merged into the distribution that explains each of them best",
        "Vongkulbhisal et al., Unifying Heterogeneous Classifiers with Distillation, 2019",
        spaces=("probs",),
        partial=True,
    ),
    ConsensusOffer(
        "running_average",
        f"{ROOM}.running_average:RunningAverage",
        summary="mean over all that has arrived so far, at every time the same share (SWA)",
        paper="Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018",
        spaces=("weights",),
        stateful=True,
        answers=ANY,
    ),
]
