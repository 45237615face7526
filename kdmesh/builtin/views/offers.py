"""What the built-in views are called and how they are configured; imports none of them."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

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


class TorchvisionConfig(Config):
    """A random transform of torchvision."""

    name: Literal[
        "RandomCrop", "RandomResizedCrop", "RandomHorizontalFlip", "RandomVerticalFlip", "RandomRotation",
        "RandomAffine", "RandomPerspective", "ElasticTransform", "RandomErasing", "ColorJitter", "RandomGrayscale",
        "RandomInvert", "RandomPosterize", "RandomSolarize", "RandomAdjustSharpness", "RandomAutocontrast",
        "RandomEqualize", "RandomPhotometricDistort", "RandomChannelPermutation", "GaussianBlur", "GaussianNoise",
        "RandAugment", "TrivialAugmentWide", "AutoAugment", "AugMix",
    ] = Field(description="its class in torchvision.transforms.v2")  # fmt: skip
    settings: dict[str, Any] = Field({}, description="its arguments: {size: [28, 28], padding: 4}")

    @field_validator("name", mode="before")
    @classmethod
    def _random(cls, value: Any) -> Any:
        if value in ("Normalize", "Resize", "CenterCrop", "Pad", "Grayscale", "ToDtype", "ToTensor"):
            raise ValueError(
                f"{value} makes the same of a sample each time, and augmentations are left out where agents are "
                "measured: it belongs to the data, by `prepare` (columns: pixels, scale: standard), which comes after "
                "transforms of colours, or the reader's own settings (resize, mode)"
            )
        return value

    @model_validator(mode="after")
    def _acts(self) -> Self:
        if self.name == "ColorJitter" and not any(self.settings.values()):
            raise ValueError("ColorJitter without settings changes nothing: settings: {brightness: 0.3}")
        return self

    def idle(self) -> dict[str, str]:
        """Nobody's turn."""
        return {"settings": "no image is transformed (p: 0)"} if self.settings.get("p") == 0 else {}


VIEWS = [
    ViewOffer("noise", "kdmesh.builtin.views.noise:Noise", NoiseConfig, "add Gaussian noise"),
    ViewOffer("shift", "kdmesh.builtin.views.shift:Shift", ShiftConfig, "move images by whole pixels"),
    ViewOffer("flip", "kdmesh.builtin.views.flip:Flip", FlipConfig, "mirror images"),
    ViewOffer("drop", "kdmesh.builtin.views.drop:Drop", DropConfig, "drop features"),
    ViewOffer(
        "torchvision",
        "kdmesh.builtin.views.torchvision:Torchvision",
        TorchvisionConfig,
        "transform images by a random transform of torchvision, by name",
    ),
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
