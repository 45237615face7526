"""The built-in rules of pruning as offers: reading this imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from kdmesh.offers import Config, PruningOffer

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Dropped = PositiveInt | Annotated[list[NonNegativeInt], Field(min_length=1)]
ROOM = "kdmesh.builtin.prunings"


class HeadsConfig(Config):
    """Settings of `heads`."""

    drop: Dropped = Field(
        description="how many of each layer, those whose weights have the least norm; or which, in every layer: "
        "of keys and values, where queries share these, each with its queries"
    )

    @model_validator(mode="after")
    def _once(self) -> Self:
        if isinstance(self.drop, list) and len(set(self.drop)) < len(self.drop):
            raise ValueError("`drop` names one twice")
        return self


class LayersConfig(HeadsConfig):
    """Settings of `layers`."""

    drop: Dropped = Field(description="how many, or which, counted from 0")
    by: Literal["last", "alternate"] | None = Field(
        None, description="which, if `drop` is a number: the last ones (the default), or every second one from the end"
    )

    @model_validator(mode="after")
    def _chosen(self) -> Self:
        if isinstance(self.drop, list) and self.by is not None:
            raise ValueError("`by` chooses where `drop` is a number: leave it out")
        return self


class NeuronsConfig(Config):
    """Settings of `neurons`."""

    share: Share = Field(description="share of each layer's units that goes, those whose weights have the least norm")


class WidthConfig(Config):
    """Settings of `width`."""

    share: Share = Field(
        description="share of the hidden units that goes, the same in all layers, those whose weights have the least "
        "norm; where heads have no size of their own, as great a share of these"
    )


class MagnitudeConfig(Config):
    """Settings of `magnitude`."""

    share: Share = Field(description="share of the weights of linear and convolutional layers that becomes 0")
    over: Literal["layer", "model"] = Field(
        "layer", description="layer: this share of each one's; model: the smallest of all of them together"
    )


PRUNINGS = [
    PruningOffer(
        "layers",
        f"{ROOM}.layers:Layers",
        LayersConfig,
        "whole layers of a transformer",
        "Sajjad et al., On the Effect of Dropping Layers of Pre-trained Transformer Models, 2023",
    ),
    PruningOffer(
        "heads",
        f"{ROOM}.heads:Heads",
        HeadsConfig,
        "attention heads, as many in each layer, where they have a size of their own",
        "Michel et al., Are Sixteen Heads Really Better than One?, 2019",
    ),
    PruningOffer(
        "neurons",
        f"{ROOM}.neurons:Neurons",
        NeuronsConfig,
        "units of feed-forward layers, as many in each layer",
        "Li et al., Pruning Filters for Efficient ConvNets, 2017",
    ),
    PruningOffer(
        "width",
        f"{ROOM}.width:Width",
        WidthConfig,
        "hidden units, the same in all layers",
        "Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation, 2024",
    ),
    PruningOffer(
        "magnitude",
        f"{ROOM}.magnitude:Magnitude",
        MagnitudeConfig,
        "small weights, which become 0 and stay it",
        "Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015",
        takes="weights",
    ),
]
