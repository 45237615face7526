"""Models of timm, by their names there; their weights are drawn, or read from a safetensors file.

Wightman, "PyTorch Image Models", 2019, github.com/huggingface/pytorch-image-models; each model names its own paper
there.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from kdmesh.builtin.models._library import library, made, refuse_args, refuse_channels, refuse_name
from kdmesh.builtin.models._shape import image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

OFFER = "timm"


def build(input_shape: Sequence[int], classes: int, name: str, args: dict[str, Any]) -> nn.Module:
    """Return ``timm.create_model(name, num_classes=classes, in_chans=channels, **args)``."""
    channels, _, _ = image(input_shape, OFFER)
    timm = library("timm", OFFER, "timm")
    refuse_name(name, timm.list_models(), OFFER)
    refuse_args(args, ["num_classes", "in_chans", *inspect.signature(timm.create_model).parameters], OFFER)
    ours = {"pretrained": False, "num_classes": classes, "in_chans": channels}
    module = made(lambda: timm.create_model(name, **ours, **args), name, OFFER)
    refuse_channels(module, name, channels, OFFER)
    return module
