"""Models of torchvision, by their names there; their weights are drawn, or read from a safetensors file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.builtin.models._library import library, made, refuse_args, refuse_channels, refuse_name
from kdmesh.builtin.models._shape import image
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

OFFER = "torchvision"
OURS = ("num_classes", "progress")


def build(input_shape: Sequence[int], classes: int, name: str, args: dict[str, Any]) -> nn.Module:
    """Return ``torchvision.models.<name>(num_classes=classes, **args)``, a module of images ``[B, 3, H, W]``."""
    channels, _, _ = image(input_shape, OFFER)
    models = library("torchvision.models", OFFER, "vision")
    refuse_name(name, models.list_models(module=models), OFFER)
    refuse_args(args, OURS, OFFER)
    module = made(lambda: models.get_model(name, weights=None, num_classes=classes, **args), name, OFFER)
    refuse_channels(module, name, channels, OFFER)
    if getattr(module, "aux_logits", False):
        what = f"{name} has classifiers beside its own, which nothing would train"
        raise MeshError(what, where=f"model.{OFFER}.args", instead="args: {aux_logits: false}")
    return module
