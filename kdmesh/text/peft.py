"""Adapters through `peft`: low-rank updates, or a prefix; everything else of the model is frozen."""

from __future__ import annotations

import copy
import json
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from kdmesh.errors import MeshError
from kdmesh.files import read, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peft import PeftModel
    from transformers import PreTrainedModel

    from kdmesh.text.settings import LoraSettings, PrefixSettings

BYTES = 1 << 20  # of an adapter's settings

ADAPTER = "adapter"
"""The sub-folder of an exported model that holds its adapter by itself."""


def adapt(
    net: PreTrainedModel, kind: str, lora: LoraSettings | None, prefix: PrefixSettings | None, base: str
) -> PeftModel:
    """Wrap a model: its adapters train, and of a classifier the head.

    ``kind``: what peft calls a model of this kind; ``base``: what the adapter's card calls the model.
    """
    where = "model.hf.lora" if lora is not None else "model.hf.prefix"
    try:
        import peft
    except ImportError:
        raise MeshError("adapters need peft", where=where, instead="pip install kdmesh[peft]") from None
    config: Any
    kinds: Any = peft
    if lora is not None:
        config = kinds.LoraConfig(
            task_type=kind,
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
        )
    else:
        assert prefix is not None
        config = peft.PrefixTuningConfig(task_type=kind, num_virtual_tokens=prefix.length)
    try:
        with calm():
            adapted = peft.get_peft_model(net, config)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise MeshError(
            f"peft cannot adapt {net.config.model_type}: {error}",
            where=where,
            instead="targets: [names of linear layers], or another architecture",
        ) from None
    config.base_model_name_or_path = base
    return adapted


@contextmanager
def calm() -> Iterator[None]:
    """Let peft not warn: it asks transformers by old names, tells of a setting it mends itself, and of tied layers,
    which are untied before anything is merged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set")
        warnings.filterwarnings("ignore", "Model with `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
        yield


def with_prefix(net: Any, root: Path) -> Any:
    """Read the adapter that stands beside a model, as its card says.

    MeshError where it is another kind of adapter, or has not the sizes of its weights: peft would import what an
    adapter's settings name, ask the hub for weights that are not there, and take memory for any size.
    """
    from peft import PeftModel

    folder = root / ADAPTER
    file = folder / "adapter_model.safetensors"
    try:
        found = json.loads(read(folder / "adapter_config.json", most=BYTES))
        with safe_open(file, "pt") as opened:
            stored = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118
        sizes = [found["num_virtual_tokens"], found["num_layers"] * 2 * found["token_dim"]]
        sound = found["peft_type"] == "PREFIX_TUNING" and not found.get("prefix_projection") and sizes in stored
        why = "" if sound else "is no prefix of the sizes of its weights"
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        why = f"is damaged: {type(error).__name__}: {reason(error)}"
    if why:
        raise MeshError(f"the adapter in {folder} {why}", file=str(root), instead="a complete copy of the folder")
    with calm():
        return PeftModel.from_pretrained(net, str(folder))


@torch.no_grad()
def merged(net: PeftModel) -> PreTrainedModel:
    """A copy with its low-rank updates added to the weights.

    An update of one of two tied layers must not reach the other: the copy then has them apart, and its configuration
    says so.
    """
    own: Any = copy.deepcopy(net)
    if untied(own):
        own.config.get_text_config().tie_word_embeddings = own.config.tie_word_embeddings = False
    with calm():
        plain: PreTrainedModel = own.merge_and_unload()
    return plain


def untied(net: nn.Module) -> bool:
    """Give every layer weights of its own, if one with an update shares its; whether there was such a one."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for part in dict.fromkeys(net.modules()):
        for name, parameter in part.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((part, name))
    bases = {id(part.base_layer) for part in net.modules() if isinstance(getattr(part, "base_layer", None), nn.Module)}
    shared = [places for places in owners.values() if len(places) > 1]
    if not any(id(part) in bases for places in shared for part, _ in places):
        return False
    for places in shared:
        for part, name in places[1:]:
            old = getattr(part, name)
            setattr(part, name, nn.Parameter(old.detach().clone(), requires_grad=old.requires_grad))
    return True
