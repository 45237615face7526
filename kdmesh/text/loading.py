"""Load a model's weights whole or not at all, and fit its head to the data's classes."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kdmesh.errors import MeshError
from kdmesh.text.aligned import own_memory
from kdmesh.text.source import check_weights, fetched, quiet, reach

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedConfig, PreTrainedModel

PATH = "model.hf.path"


def read_model(
    auto: Any,
    config: PreTrainedConfig,
    path: str,
    revision: str | None,
    trusted: bool,
    head: bool,
    how: dict[str, Any],
    whole: bool = False,
    new_head: str | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a checkpoint's weights into the model of ``config``; with it, the names of those that were drawn anew.

    What transformers would silently draw is refused, unless it is a whole head (``head``: classification) that the
    checkpoint does not have: that one starts at random, from torch's default generator. ``whole``: no weights may be
    left over, and none drawn.
    ``new_head``: a layer that is drawn, whatever the checkpoint has of it. With `meta` as default device the files'
    headers are read, and the model has no weights.
    """
    check_weights(path)
    more = {**how, **reach(path, revision, PATH), **({} if revision is None else {"revision": revision})}
    meta = torch.get_default_device().type == "meta"
    with quiet(), fetched(path, PATH, "a complete checkpoint of this architecture"), _device(meta) as device:
        model, info = auto.from_pretrained(
            path,
            config=config,
            trust_remote_code=trusted,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be told of them
            **more,
            **device,
        )
    drawn: set[str] = set()
    if new_head is not None:
        drawn = _draw(model, new_head)
    for key, stored, own in sorted(info["mismatched_keys"]):
        if key in drawn:
            continue
        anew = _heads(model)
        raise MeshError(
            f"{path} has {key} of shape {tuple(stored)}, where this model has {tuple(own)}",
            where=PATH,
            instead="weights of this architecture and with as many outputs"
            + (f", or new_head: {key.split('.')[0]}, which then starts anew" if key.split(".")[0] in anew else ""),
        )
    new = head and not whole
    lacks = set(info["missing_keys"]) - drawn
    missing = {key for key in lacks if not (new and is_new_head(model, key, info["missing_keys"]))}
    if missing:
        first, more_keys = min(missing), f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MeshError(
            f"the weights in {path} are incomplete: {first}{more_keys} missing", where=PATH, instead="a complete copy"
        )
    if whole and info["unexpected_keys"]:
        raise MeshError(
            f"{path} has weights for {min(info['unexpected_keys'])}, which its config.json does not describe",
            where=PATH,
            instead="a complete copy",
        )
    if not meta:
        own_memory(model)
    return model, sorted(lacks | drawn)


def _heads(model: PreTrainedModel) -> list[str]:
    """The layers with weights that stand beside the network itself."""
    base = [] if model.base_model is model else [model.base_model_prefix]
    return [name for name, part in model.named_children() if name not in base and any(True for _ in part.parameters())]


def _draw(model: PreTrainedModel, layer: str) -> set[str]:
    """Draw a head anew, as its architecture begins it; the names of its parameters. MeshError for what is no head."""
    heads = _heads(model)
    if layer not in heads:
        what, where = f"this model has no head {layer!r}", "model.hf.new_head"
        raise MeshError(what, where=where, instead=f"new_head: {' or '.join(heads)}" if heads else "leave it out")
    head = model.get_submodule(layer)
    if not next(head.parameters()).is_meta:
        for part in head.modules():
            for tensor in [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
                vars(tensor).pop("_is_hf_initialized", None)  # by which transformers would leave it as it was read
            vars(part).pop("_is_hf_initialized", None)
            model._init_weights(part)
    return {f"{layer}.{name}" for name in head.state_dict()}


@contextmanager
def _device(meta: bool) -> Iterator[dict[str, str]]:
    """What tells transformers to read no weights; without `accelerate` it cannot, and reads them."""
    if not meta:
        yield {}
    elif find_spec("accelerate") is not None:
        yield {"device_map": "meta"}
    else:
        with torch.device("cpu"):
            yield {}


def is_new_head(model: PreTrainedModel, key: str, missing: Sequence[str]) -> bool:
    """Whether a parameter that a checkpoint lacks belongs to a layer of a head that it lacks altogether."""
    prefix, layer = f"{model.base_model_prefix}.", key.rpartition(".")[0]
    whole = all(name in missing for name in model.state_dict() if name.rpartition(".")[0] == layer)
    beside = model.base_model is not model and not key.startswith(prefix)  # a model without head is its own base
    return whole and (beside or "pooler" in key.split("."))


def order_of(config: PreTrainedConfig, labels: list[str] | None, label_map: dict[str, str]) -> list[int] | None:
    """Which of a classifier's outputs answers for each of the data's labels; None where its labels have no names."""
    own = names(config)
    for name in label_map:
        if name not in own:
            raise MeshError(
                f"the checkpoint has no label {name!r}",
                where=f"model.hf.label_map.{name}",
                instead=f"its labels: {', '.join(own)}",
            )
    if labels is None or (nameless(config) and not label_map):
        return None
    if not labels:
        raise MeshError(
            f"the checkpoint's labels are {', '.join(own)}; the data's are numbers without names",
            where="model.hf.path",
            instead=f"names for them, in their order: data.dataset.text.labels: [{', '.join(own)}]",
        )
    mapped = [label_map.get(name, name) for name in own]
    if sorted(mapped) != sorted(labels):
        raise MeshError(
            f"the checkpoint's labels are {', '.join(mapped)}; the data's are {', '.join(labels)}",
            where="model.hf.label_map",
            instead="label_map: {LABEL OF THE CHECKPOINT: LABEL OF THE DATA}, or a checkpoint of these labels",
        )
    return [mapped.index(name) for name in labels]


def nameless(config: PreTrainedConfig) -> bool:
    """Whether labels have the names that transformers gives where nobody named them."""
    return all(name == f"LABEL_{number}" for number, name in enumerate(names(config)))


def names(config: PreTrainedConfig) -> list[str]:
    """The labels of a classifier, in the order of its outputs."""
    return [name for _, name in sorted((config.id2label or {}).items())]


def name_labels(config: PreTrainedConfig, labels: list[str] | None, classes: int) -> None:
    """Let a model have so many outputs, by these names."""
    config.num_labels = classes
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: number for number, name in enumerate(labels)}


@torch.no_grad()
def reorder(model: PreTrainedModel, order: list[int]) -> None:
    """Put the rows of the last layer into this order."""
    prefix = f"{model.base_model_prefix}."
    heads = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == len(order) and not name.startswith(prefix)
    ]
    for parameter in (heads[-1].weight, heads[-1].bias):
        if parameter is not None:
            parameter.copy_(parameter[order].clone())


def keep_config(config: PreTrainedConfig, layers: list[int], where: str = "model.hf.layers") -> PreTrainedConfig:
    """The configuration of a model that has only these layers of another; ``where``: what says so."""
    count = config.num_hidden_layers
    for layer in layers:
        if layer >= count:
            raise MeshError(
                f"there is no layer {layer}: the model has {count}, counted from 0",
                where=where,
                instead=f"numbers from 0 to {count - 1}",
            )
    kept = copy.deepcopy(config)
    for name, value in vars(config).items():
        if isinstance(value, list) and "layer" in name and len(value) == count:  # a setting for each layer
            setattr(kept, name, [value[layer] for layer in layers])
    kept.num_hidden_layers = len(layers)
    return kept


def keep_layers(
    model: PreTrainedModel, layers: list[int], how: dict[str, Any], where: str = "model.hf.layers"
) -> PreTrainedModel:
    """A model of chosen layers of another, with its embeddings, its pooler and its head; ``where``: what says so."""
    count = model.config.num_hidden_layers
    blocks = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if not blocks:
        raise MeshError(
            f"{model.config.model_type} has no list of {count} layers to choose from",
            where=where,
            instead="a configuration of its own: config: {model_type: ...}",
        )
    with quiet():
        kept: PreTrainedModel = type(model)._from_config(keep_config(model.config, layers, where), **how)
    state, prefix = model.state_dict(), f"{blocks[0]}."

    def origin(name: str) -> str:
        if not name.startswith(prefix):
            return name
        number, _, rest = name.removeprefix(prefix).partition(".")
        return f"{prefix}{layers[int(number)]}.{rest}"

    kept.load_state_dict({name: state[origin(name)] for name in kept.state_dict()})
    return kept
