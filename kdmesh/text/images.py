"""A model of transformers that classifies images, with its processor, as an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.text.build import auto_of, network, say_problem
from kdmesh.text.heads import IMAGE, SEQUENCE, USAGE, head_of
from kdmesh.text.loading import name_labels, order_of
from kdmesh.text.processor import Processor, read, write
from kdmesh.text.settings import HfConfig, ProcessorSettings
from kdmesh.text.source import licence_of, local, make_config, quiet, read_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kdmesh.text.heads import Head

OF_TEXTS = ("tokenizer", "pad_token", "bi_encoder", "lora", "prefix", "max_length")


class ImageModel(nn.Module):
    """``net``, a model of transformers, of what ``processor`` makes of images ``[B, C, H, W]`` with pixels 0 to 1.

    ``forward(x) -> logits [B, classes]``; taps are layers of ``net``: ``net.vit.encoder.layer.0`` say. ``base``: what
    it started from, ``hub`` whether that is on the hub, ``licence`` what its card states; ``drawn``: the parameters
    that no file had.
    """

    head = IMAGE
    kind: Head | None = None
    adapted: str | None = None

    def __init__(self, net: Any, processor: Processor, base: str, hub: bool, licence: str | None) -> None:
        super().__init__()
        self.net, self.processor = net, processor
        self.base, self.hub, self.licence = base, hub, licence
        self.drawn: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        seen = self.processor(x)
        logits: Tensor = self.net(pixel_values=seen.to(next(self.net.parameters()).dtype)).logits
        return logits

    def export(self, folder: Path, told: Mapping[str, str] | None = None) -> None:
        """Write a ``save_pretrained`` folder with its processor, by which transformers gives the same logits.

        ``told``: what the header of every weights file says beside.
        """
        from kdmesh.text.aligned import align

        with quiet():
            self.net.save_pretrained(folder)
        for file in folder.rglob("*.safetensors"):
            align(file, told)
        write(self.processor.settings, self.processor.output[0], folder)

    def sources(self) -> list[Path]:
        """No files to refer to: the folder of a run has the whole model."""
        return []

    def usage(self) -> list[str]:
        """A program's lines that ask a `model` with its `processor`."""
        usage = USAGE.get(self.net.config.problem_type or "", self.head.usage)
        return ['logits = model(**processor(Image.open("an.png"), return_tensors="pt")).logits', usage]

    def card(self, name: str, **facts: Any) -> str:
        """See :func:`kdmesh.text.card.card`."""
        from kdmesh.text.card import card

        return card(name, self, **facts)


def build(
    config: HfConfig,
    *,
    task: str,
    input_shape: Sequence[int],
    classes: int,
    labels: Sequence[str] = (),
    whole: bool = False,
) -> ImageModel:
    """Return the model; what is not read is drawn from torch's default generator.

    ``labels``: names of the classes, as far as there are any; ``whole``: a folder that we wrote. MeshError for settings
    that are of texts, and for images that the model does not read.
    """
    if len(input_shape) != 3:
        what = f"the data's samples are {list(input_shape)}, neither texts nor images [channels, height, width]"
        raise MeshError(what, where="model.hf", instead="mlp, or another model of numbers")
    if head_of(task) != SEQUENCE:
        raise MeshError(f"no model of images answers for {task}", where="model.hf", instead="task: classification")
    for name in OF_TEXTS:
        if getattr(config, name) is not None:
            raise MeshError("the data are images", where=f"model.hf.{name}", instead="leave it out: it is of texts")
    channels, height, width = input_shape
    trusted, path, names = config.trust_remote_code is not None, config.path, [*labels]
    processor = Processor(_seen(config), (channels, height, width))
    if path is None:
        own = {"num_channels": channels, "image_size": processor.output[1]}
        settings, order = make_config(config.config, own), None
    else:
        settings = read_config(path, config.revision, trusted, config.config)
        order = None if config.new_head is not None else order_of(settings, names, config.label_map)
    auto = auto_of(IMAGE, task, settings, trusted)
    _refuse_images(settings, channels, processor.output[1:], path)
    if path is None or config.new_head is not None or order is None:
        settings.num_labels = classes
    say_problem(settings, task)
    kind = "auto" if whole else getattr(torch, config.dtype)
    how = {"dtype": kind, "attn_implementation": config.attention}
    net, drawn = network(
        auto, settings, path, config.revision, trusted, how, config.layers, order, True, whole, config.new_head
    )
    name_labels(net.config, names or None, classes)
    if config.gradient_checkpointing:
        net.gradient_checkpointing_enable({"use_reentrant": False})
    folder = None if path is None else local(path, "model.hf.path")
    base = "" if path is None else path if folder is None else folder.resolve().name  # no path of this machine
    licence = licence_of(path) if path is not None and folder is not None else None
    made = ImageModel(net.train(), processor, base, path is not None and folder is None, licence)
    made.drawn = [name for name, _ in net.named_parameters()] if drawn is None else drawn
    return made


def _seen(config: HfConfig) -> ProcessorSettings:
    """How images are seen: as the file says, else by the processor beside the weights, else as they are."""
    own = config.processor
    if isinstance(own, str):
        return read(own)
    if own is not None:
        return own
    return ProcessorSettings() if config.path is None else read(config.path, config.revision)


def _refuse_images(settings: Any, channels: int, size: Sequence[int], path: str | None) -> None:
    """MeshError for images of other channels, or of another size, than the model reads."""
    own = getattr(settings, "num_channels", channels)
    where = "model.hf.path" if path is not None else "model.hf.config.num_channels"
    if own != channels:
        what = f"{settings.model_type} reads images of {own} channels, and these have {channels}"
        raise MeshError(what, where=where, instead=f"`mode: {'rgb' if own == 3 else 'grey'}` of the data set")
    wanted, patch = getattr(settings, "image_size", None), getattr(settings, "patch_size", None)
    if not isinstance(wanted, int) or not isinstance(patch, int) or settings.model_type.startswith("dinov2"):
        return  # no size, or one that positions are interpolated from: asked in the forward itself
    if [*size] != [wanted, wanted]:
        what = f"{settings.model_type} reads images of {wanted}x{wanted}, and sees these as {size[0]}x{size[1]}"
        raise MeshError(what, where="model.hf.processor", instead=f"{{size: [{wanted}, {wanted}]}}, with mean and std")
