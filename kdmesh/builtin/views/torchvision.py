"""Random transforms of torchvision (`transforms.v2`) by name."""

from __future__ import annotations

import inspect
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.builtin.views._random import need_image
from kdmesh.errors import MeshError, nearest, text_of
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from torch import Tensor

WHERE = "view.augment.torchvision"
OF_PIXELS = (
    *("ColorJitter", "RandAugment", "AutoAugment", "TrivialAugmentWide", "AugMix", "RandomInvert", "RandomPosterize"),
    *("RandomSolarize", "RandomAdjustSharpness", "RandomAutocontrast", "RandomEqualize", "RandomPhotometricDistort"),
)
"""Those that take values for pixels of 0 to 1, and would cut others off."""
ROUNDING = 1e-5


class Torchvision:
    """Each image is transformed by itself, on the CPU, so that every device sees the same.

    torchvision draws from torch's default generator alone: it is seeded by (seed, sample, draw) for each image, and put
    back as it was.
    """

    def __init__(self, seed: int, name: str, settings: dict[str, Any]) -> None:
        self.seed, self.name = seed, name
        self.transform = _made(name, settings)
        self.of_pixels = name in OF_PIXELS

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Tensor:
        """Return the transformed images ``[B, C, H, W]``; ``ids [B]`` int64."""
        need_image(x, "torchvision")
        images = x.detach().to("cpu", torch.float32, copy=True)
        if len(x):
            self._refuse_range(images)
        seen = []
        with torch.random.fork_rng(devices=()):
            for image, sample in zip(images, ids.tolist(), strict=True):
                torch.default_generator.manual_seed(mix(self.seed, "torchvision", draw, sample))
                seen.append(self._transformed(image))
        return torch.stack(seen).to(x) if seen else x.clone()

    def _transformed(self, image: Tensor) -> Tensor:
        try:
            made: Tensor = self.transform(image)
        except (TypeError, ValueError, RuntimeError) as error:
            what = f"{self.name} cannot transform images {list(image.shape)}: {text_of(error)}"
            raise MeshError(what, where=WHERE, instead="other settings, or another transform") from None
        if made.shape != image.shape:
            what = f"{self.name} makes images {list(made.shape)} of {list(image.shape)}, and a model reads one size"
            instead = f"size: {list(image.shape[1:])}" if "Crop" in self.name else "settings that keep the size"
            raise MeshError(what, where=WHERE, instead=instead)
        return made

    def _refuse_range(self, images: Tensor) -> None:
        if not self.of_pixels:
            return
        low, high = (value.item() for value in images.aminmax())
        if low < -ROUNDING or high > 1 + ROUNDING:
            what = f"{self.name} reads pixels of 0 to 1, and these are of {low:.3g} to {high:.3g}"
            raise MeshError(what, where=WHERE, instead="images that are not scaled before")


def _made(name: str, settings: dict[str, Any]) -> Any:
    """The transform. MeshError where torchvision is missing, or does not take the settings."""
    try:
        library: Any = import_module("torchvision.transforms.v2")
    except (ImportError, RuntimeError) as error:  # a wheel beside another build of torch
        what = f"this needs torchvision: {text_of(error)}"
        raise MeshError(what, where=WHERE, instead="pip install torchvision, of the build that fits torch") from None
    kind = getattr(library, name, None)
    if kind is None:
        what = f"this version of torchvision has no {name}"
        raise MeshError(what, where=f"{WHERE}.name", instead="a newer one, or another transform")
    takes = {one: value for one, value in inspect.signature(kind).parameters.items() if one != "inplace"}
    for field in settings:
        if field not in takes:
            what = f"{name} takes no {field!r}"
            raise MeshError(what, where=f"{WHERE}.settings.{field}", instead=nearest(field, takes, "settings"))
    missing = [one for one, value in takes.items() if value.default is value.empty and one not in settings]
    if missing:
        what = f"{name} needs {' and '.join(missing)}"
        raise MeshError(what, where=f"{WHERE}.settings", instead=f"settings: {{{missing[0]}: ...}}")
    try:
        return kind(**{field: _value(takes[field].default, value) for field, value in settings.items()})
    except (TypeError, ValueError) as error:
        what = f"{name} does not take these settings: {text_of(error)}"
        raise MeshError(what, where=f"{WHERE}.settings", instead="what torchvision's own page says of it") from None


def _value(default: Any, value: Any) -> Any:
    """A setting as torchvision takes it: a word may name a policy."""
    return type(default)(value) if isinstance(default, Enum) else value
