"""What the built-in views are called and how they are configured; imports none of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdmesh.offers import Config, ViewOffer


class NoiseConfig(Config):
    """Gaussian noise."""

    std: float = Field(0.1, ge=0, description="standard deviation, in the data's own unit")

    def idle(self) -> dict[str, str]:
        """Noise of deviation 0."""
        return {} if self.std else {"std": "no noise is added"}


class ShiftConfig(Config):
    """Images moved by whole pixels."""

    pixels: int = Field(1, ge=0, description="largest shift in each direction; what comes in is 0")

    def idle(self) -> dict[str, str]:
        """A shift by 0 pixels."""
        return {} if self.pixels else {"pixels": "no image is moved"}


class FlipConfig(Config):
    """Mirrored images."""

    horizontal: bool = Field(True, description="left and right change places; false: top and bottom")
    p: float = Field(0.5, ge=0, le=1, description="share of samples that are mirrored")

    def idle(self) -> dict[str, str]:
        """Nobody's turn."""
        return {} if self.p else {"p": "no image is mirrored"}


class DropConfig(Config):
    """Features set to 0, the rest scaled up."""

    p: float = Field(0.1, ge=0, lt=1, description="share of features that are dropped")

    def idle(self) -> dict[str, str]:
        """Nobody's turn."""
        return {} if self.p else {"p": "no feature is dropped"}


class MixConfig(Config):
    """Samples of a batch, mixed in pairs."""

    alpha: float = Field(1.0, gt=0, description="shares are from Beta(alpha, alpha): 1 is uniform, less is milder")
    per: Literal["batch", "sample"] = Field("batch", description="one share for each batch, or for each of its samples")
    p: float = Field(1.0, ge=0, le=1, description="probability that a batch, or a sample of it, is mixed at all")

    def idle(self) -> dict[str, str]:
        """Nobody's turn."""
        return {} if self.p else {"p": "nothing is mixed"}


VIEWS = [
    ViewOffer("noise", "kdmesh.builtin.views.noise:Noise", NoiseConfig, "add Gaussian noise"),
    ViewOffer("shift", "kdmesh.builtin.views.shift:Shift", ShiftConfig, "move images by whole pixels"),
    ViewOffer("flip", "kdmesh.builtin.views.flip:Flip", FlipConfig, "mirror images"),
    ViewOffer("drop", "kdmesh.builtin.views.drop:Drop", DropConfig, "drop features"),
    ViewOffer(
        "mixup",
        "kdmesh.builtin.views.mixup:Mixup",
        MixConfig,
        "mix the samples of a batch, and their labels",
        "Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018",
        mixes=True,
    ),
    ViewOffer(
        "cutmix",
        "kdmesh.builtin.views.cutmix:Cutmix",
        MixConfig,
        "put a box of one image into another, and mix their labels by area",
        "Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, ICCV 2019",
        mixes=True,
    ),
]
