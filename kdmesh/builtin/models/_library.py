"""What models that another library names have in common: how one is chosen, made, and compared with the samples."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kdmesh.errors import MeshError, nearest, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def library(module: str, offer: str, extra: str) -> Any:
    """The library's module. MeshError where it is missing, or was built for another torch."""
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:
        what, instead = f"this needs {module}: {text_of(error)}", f'pip install "kdmesh[{extra}]", built for this torch'
        raise MeshError(what, where=f"model.{offer}", instead=instead) from None


def refuse_name(name: str, known: Collection[str], offer: str) -> None:
    """MeshError for a name that the library does not have."""
    if name not in known:
        what, instead = f"{offer} has no model {name!r} of images", nearest(name, known, "models")
        raise MeshError(what, where=f"model.{offer}.name", instead=instead)


def refuse_args(args: dict[str, Any], ours: Collection[str], offer: str) -> None:
    """MeshError for arguments that are not the file's to give: ``ours``, and what would fetch weights."""
    fetched = {"weights", "pretrained", "pretrained_cfg", "checkpoint_path", "weights_backbone"}
    for name in args:
        where = f"model.{offer}.args.{name}"
        if name in fetched:
            what = "weights are read from a file of this machine, as safetensors, and never fetched or unpickled"
            raise MeshError(what, where=where, instead="agents.NAME.weights: FILE, with new_head: LAYER where it is")
        if name in ours:
            raise MeshError(f"`{name}` follows from the data", where=where, instead="leave it out")


def made(make: Callable[[], nn.Module], name: str, offer: str) -> nn.Module:
    """The module that ``make`` makes. MeshError for whatever a library raises there."""
    try:
        try:
            return make()
        except NotImplementedError:  # some compute their widths with tensors, which have no values on meta
            if torch.get_default_device().type != "meta":
                raise
        with torch.device("cpu"):
            return make().to("meta")
    except Exception as error:  # each model checks its arguments in its own way
        what, instead = f"{name} cannot be made: {text_of(error)}", "arguments that this model takes"
        raise MeshError(what, where=f"model.{offer}.args", instead=instead) from None


def refuse_channels(module: nn.Module, name: str, channels: int, offer: str) -> None:
    """MeshError where the first convolution reads other images than these."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        what = f"{name} reads images of {first.in_channels} channels, and these have {channels}"
        instead = f"`mode: {'rgb' if first.in_channels == 3 else 'grey'}` of the data set"
        raise MeshError(what, where=f"model.{offer}.name", instead=f"{instead}, or a model of `timm`, which reads both")
