"""timm: its models, by their names there.

Wightman, "PyTorch Image Models", 2019, github.com/huggingface/pytorch-image-models; each model names its own paper
there.

A model's factory is given the shape of a sample and the number of classes. timm is imported where a model is made: who
lists plugins or plans a mesh does not need it, and who needs it and has it not is told what to install.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, JsonValue

import kdmesh
from kdmesh.errors import MeshError
from kdmesh.offers import Config, ModelOffer


class Settings(Config):
    """Settings of the model."""

    name: str = Field(description="a model of timm: `resnet18`, `mobilenetv3_small_050` ...")
    pretrained: bool = Field(False, description="begin with the weights that timm downloads")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="more arguments of timm.create_model")


def build(input_shape: Sequence[int], classes: int, name: str, pretrained: bool, options: dict[str, JsonValue]) -> Any:
    """Return the module, for samples ``[channels, height, width]``."""
    try:
        import timm
    except ImportError as error:
        what = f"timm cannot be imported ({error})"
        raise MeshError(what, where="model.timm", instead="pip install timm") from None
    if len(input_shape) != 3:
        what = f"timm's models read images, and the data's samples are {list(input_shape)}"
        raise MeshError(what, where="model.timm", instead="images [channels, height, width], or `mlp`")
    if not timm.is_model(name):
        raise MeshError(f"timm has no model {name!r}", where="model.timm.name", instead="one of timm.list_models()")
    return timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=input_shape[0], **options)


MODEL = ModelOffer(
    "timm",
    "timm_models:build",
    Settings,
    "any model of timm, by its name there",
    "Wightman, PyTorch Image Models, 2019",
)


@kdmesh.hookimpl
def kdmesh_models() -> list[ModelOffer]:
    """Offer the models."""
    return [MODEL]
