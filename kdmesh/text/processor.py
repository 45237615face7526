"""How a model of transformers sees an image: its size, its crop, the mean and deviation of its pixels, as a module.

It does what the image processors of transformers do that have no steps of their own, as those of ViT, DeiT, DINOv2,
CLIP and SigLIP. Images that have the size which it wants become the same numbers to the bit; others are resized by
Pillow's filters, computed in float32 where Pillow rounds to whole levels after each axis: within 1.5 of 255 levels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.text.source import fetched, local, quiet, reach

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kdmesh.text.settings import ProcessorSettings

WHERE = "model.hf.processor"
FILE = "preprocessor_config.json"
STEPS = ("preprocess", "_preprocess", "_preprocess_image_like_inputs", "resize", "rescale", "normalize", "center_crop")
"""Methods of transformers' processors which those have in common that this module stands for."""


def _cubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _lanczos(x: float) -> float:
    def sinc(x: float) -> float:
        return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)

    return sinc(x) * sinc(x / 3) if -3 <= x < 3 else 0.0


FILTERS: dict[str, tuple[float, Callable[[float], float]]] = {
    "bilinear": (1.0, lambda x: max(0.0, 1 - abs(x))),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, _lanczos),
    "box": (0.5, lambda x: 1.0 if -0.5 < x <= 0.5 else 0.0),
}
"""Pillow's filters: how far each reaches, and its weight at a distance."""
NUMBERS = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
"""By which numbers Pillow, and so a processor's file, names them."""


class Processor(nn.Module):
    """Images ``[B, C, H, W]`` of pixels 0 to 1 as the model's ``pixel_values [B, C, h, w]``, with gradient."""

    def __init__(self, settings: ProcessorSettings, shape: tuple[int, int, int]) -> None:
        """``shape``: of an image, channels, height and width. MeshError for settings that do not fit it."""
        super().__init__()
        channels, height, width = shape
        self.settings = settings
        sized = _resized(settings, height, width)
        crop = settings.crop or sized
        if crop[0] > sized[0] or crop[1] > sized[1]:
            what = f"it crops {list(crop)} of images that it made {list(sized)}"
            raise MeshError(what, where=f"{WHERE}.crop", instead="a crop that is no larger")
        top, left = (sized[0] - crop[0]) // 2, (sized[1] - crop[1]) // 2
        self.output = channels, *crop
        self._rows, self._columns = slice(top, top + crop[0]), slice(left, left + crop[1])
        for name, size, wanted in (("tall", height, sized[0]), ("wide", width, sized[1])):
            matrix = None if size == wanted else _matrix(size, wanted, settings.resample)
            self.register_buffer(name, matrix, persistent=False)
        for name, values in (("mean", settings.mean), ("std", settings.std)):
            if len(values) not in (1, channels):
                what = f"`{name}` has {len(values)} values, and images have {channels} channels"
                instead = f"one, or {channels}" if channels != 1 else "one; or `mode: rgb` of the data set"
                raise MeshError(what, where=f"{WHERE}.{name}", instead=instead)
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)
        self._scale = settings.scale

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C, h, w]``."""
        tall, wide, mean, std = (self.get_buffer(name) if getattr(self, name) is not None else None for name in _PARTS)
        if wide is not None:  # in Pillow's order, which cuts off what overshoots after each
            x = (x @ wide.to(x.dtype).T).clamp(0, 1)
        if tall is not None:
            x = (tall.to(x.dtype) @ x).clamp(0, 1)
        x = x[..., self._rows, self._columns]
        if self._scale != 1:
            x = x * self._scale
        assert mean is not None and std is not None
        return (x - mean.to(x.dtype)) / std.to(x.dtype)

    def extra_repr(self) -> str:
        """What it makes."""
        return f"{list(self.output)}"


_PARTS = ("tall", "wide", "mean", "std")


def _resized(settings: ProcessorSettings, height: int, width: int) -> tuple[int, int]:
    """Height and width before the crop; one number is that of the shorter side, as transformers has it."""
    size = settings.size
    if size is None:
        return height, width
    if isinstance(size, int):
        short, long = sorted((height, width))
        other = int(size * long / short)
        return (size, other) if height <= width else (other, size)
    return size


def _matrix(size: int, wanted: int, resample: str) -> Tensor:
    """``[wanted, size]``: the weights by which Pillow resizes a row, which it widens where it makes the row shorter."""
    reach_, weight = FILTERS[resample]
    step = size / wanted
    scale = max(step, 1.0)
    found = torch.zeros(wanted, size, dtype=torch.float64, device="cpu")
    for row in range(wanted):
        centre = (row + 0.5) * step
        first = max(0, int(centre - reach_ * scale + 0.5))
        last = min(size, int(centre + reach_ * scale + 0.5))
        weights = [weight((at - centre + 0.5) / scale) for at in range(first, last)]
        found[row, first:last] = torch.tensor(weights, dtype=torch.float64, device="cpu") / sum(weights)
    return found.float().to(torch.get_default_device())


def read(path: str, revision: str | None = None) -> ProcessorSettings:
    """The settings of the processor that stands in a folder, or with a hub id.

    MeshError where there is none, and for one that has steps of its own.
    """
    from kdmesh.text.settings import ProcessorSettings

    folder = local(path, WHERE)
    if folder is not None and not (folder / FILE).is_file():
        what = f"{path} has no {FILE}: nothing says which size, mean and deviation its images have"
        instead = "that file, or {size: [224, 224], mean: [0.5], std: [0.5]}; {}: images as they are"
        raise MeshError(what, where=WHERE, instead=instead)
    from transformers import AutoImageProcessor

    more: dict[str, Any] = reach(path, revision, WHERE) | ({} if revision is None else {"revision": revision})
    with quiet(), fetched(path, WHERE, f"a {FILE} of a processor that transformers knows"):
        made = AutoImageProcessor.from_pretrained(path, backend="pil", **more)
        told = made.to_dict()
    kind = type(made)
    common = next(one for one in kind.__mro__ if "_preprocess" in vars(one) and "process_image" in vars(one))
    own = [name for name in STEPS if getattr(kind, name) is not getattr(common, name)]
    odd = [name for name in ("do_pad", "do_flip_channel_order", "do_reduce_labels", "rescale_offset") if told.get(name)]
    if own or odd:
        what = f"{kind.__name__.removesuffix('Pil')} of {path} has steps of its own: {', '.join(own + odd)}"
        raise MeshError(what, where=WHERE, instead="its size, mean and deviation as settings: {size: [...], mean: ...}")
    return ProcessorSettings.model_validate(_plain(told))


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """The settings in a processor's file as ours."""
    found: dict[str, Any] = {}
    if told.get("do_resize"):
        size = told["size"]
        found["size"] = size.get("shortest_edge") or [size.get("height"), size.get("width")]
        number = int(told.get("resample") or 2)
        found["resample"] = NUMBERS.get(number, str(number))
    if told.get("do_center_crop"):
        found["crop"] = [told["crop_size"]["height"], told["crop_size"]["width"]]
    if not told.get("do_rescale"):
        found["scale"] = 255.0
    elif not math.isclose(told["rescale_factor"], 1 / 255):
        found["scale"] = 255 * told["rescale_factor"]
    if told.get("do_normalize"):
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
            value = told[theirs]
            found[ours] = value if isinstance(value, list | tuple) else [value]
    return found


def write(settings: ProcessorSettings, channels: int, folder: Path) -> None:
    """Write a processor's file, as that of ViT, by which transformers does the same."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    size: Any = settings.size if settings.size is None or isinstance(settings.size, int) else list(settings.size)
    numbers = {name: number for number, name in NUMBERS.items()}
    told: dict[str, Any] = {
        "do_resize": size is not None,
        "resample": numbers[settings.resample],
        "do_center_crop": settings.crop is not None,
        "do_rescale": True,
        "rescale_factor": settings.scale / 255,
        "do_normalize": settings.mean != [0.0] or settings.std != [1.0],
        "image_mean": [*settings.mean] * (channels if len(settings.mean) == 1 else 1),
        "image_std": [*settings.std] * (channels if len(settings.std) == 1 else 1),
    }
    if isinstance(size, int):
        told |= {"size": {"shortest_edge": size}, "default_to_square": False}
    elif size is not None:
        told["size"] = {"height": size[0], "width": size[1]}
    if settings.crop is not None:
        told["crop_size"] = {"height": settings.crop[0], "width": settings.crop[1]}
    with quiet():
        ViTImageProcessorPil(**told).save_pretrained(folder)
