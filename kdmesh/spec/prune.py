"""What is taken out of an agent's weights before it trains."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from kdmesh.spec.base import Strict

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Dropped = PositiveInt | Annotated[list[NonNegativeInt], Field(min_length=1)]


class MagnitudePrune(Strict):
    """Small weights become 0 and stay 0 while the rest trains; shapes stay as they are."""

    share: Share = Field(description="share of the weights of linear and convolutional layers that becomes 0")
    over: Literal["layer", "model"] = Field(
        "layer", description="layer: this share of each one's; model: the smallest of all of them together"
    )


class LayersPrune(Strict):
    """Whole layers of a transformer."""

    drop: Dropped = Field(description="how many, or which, counted from 0")
    by: Literal["last", "alternate"] | None = Field(
        None, description="which, if `drop` is a number: the last ones (the default), or every second one from the end"
    )


class HeadsPrune(Strict):
    """Attention heads, as many in each layer, of an architecture whose heads have a size of their own."""

    drop: Dropped = Field(
        description="how many of each layer, those whose weights have the least norm; or which, in every layer"
    )


class NeuronsPrune(Strict):
    """Units of the feed-forward layers of a transformer, as many in each."""

    share: Share = Field(description="share of each layer's units that goes, those whose weights have the least norm")


class PruneSpec(Strict):
    """One thing that is taken out: exactly one of these."""

    layers: LayersPrune | None = Field(None, description="whole layers")
    heads: HeadsPrune | None = Field(None, description="attention heads")
    neurons: NeuronsPrune | None = Field(None, description="units of feed-forward layers")
    magnitude: MagnitudePrune | None = Field(None, description="single weights, which become 0")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("write one of layers: {drop: 2}, heads: {drop: 4}, neurons: {share: 0.5}, "
                             "magnitude: {share: 0.5}; several are a list of these")  # fmt: skip
        what = getattr(self, given[0])
        which = getattr(what, "drop", None)
        if isinstance(which, list) and len(set(which)) < len(which):
            raise ValueError(f"`drop` names one of the {given[0]} twice")
        if isinstance(which, list) and getattr(what, "by", None) is not None:
            raise ValueError("`by` chooses where `drop` is a number: leave it out")
        return self

    @property
    def rule(self) -> str:
        """The one that is given, by name."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)
