"""Build an agent's module: a built-in or offered model, an import path, or a module given from Python."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.heard import origin
from kdmesh.graph.language_models import needed
from kdmesh.hosts import guard
from kdmesh.hosts.bounds import bounded
from kdmesh.hosts.compiler import spare_compiler
from kdmesh.hosts.compression.int8 import quantize
from kdmesh.hosts.compression.pruning import pruned
from kdmesh.hosts.scaled import unscale
from kdmesh.imports import import_path, maker
from kdmesh.signals.lazy import Lazy
from kdmesh.streams.seeds import mix
from kdmesh.text.source import PICKLED

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.preprocessing import Preprocessor
    from kdmesh.offers import ModelOffer
    from kdmesh.plugins import Registry
    from kdmesh.spec import ModelRef
    from kdmesh.streams.table import Table

LOOKED_AT = 8
"""Images of which the range is looked at."""
ROUNDING = 1e-5
CONVERT = (
    'a safetensors file; to make one, where you trust yours: safetensors.torch.save_file(torch.load("{}", '
    'weights_only=True), "{}.safetensors")'
)


def seed_of(plan: Plan, agent: str) -> int:
    """The seed of an agent's initial weights: given for its origin, or made from the mesh's and the origin's name."""
    first = origin(plan, agent)
    seed = plan.spec.agents[first].seed
    return mix(plan.spec.seed, "init", first) if seed is None else seed


def build(
    plan: Plan,
    agent: str,
    reading: Preprocessor,
    registry: Registry,
    modules: dict[str, nn.Module],
    device: str = "cpu",
) -> nn.Module:
    """Return the module of a weights' owner on a device, as it begins: seeded, read from a file, pruned.

    `meta` allocates nothing.
    """
    spare_compiler()
    spec = plan.spec.agents[agent]
    first = origin(plan, agent)
    begins = plan.spec.agents[first]
    path = None if device == "meta" else begins.weights
    if spec.ema is not None and spec.model is None and agent not in modules:
        module = build(plan, plan.owner[spec.ema.of], reading, registry, modules, device)
        if spec.weights is None:
            return module
    else:
        module = _plain(plan, agent, reading, registry, modules, device)
    if path is not None:
        load_weights(module, path, f"agents.{agent}.weights", begins.new_heads)
    elif first != agent and first in modules and device != "meta":
        module.load_state_dict(plain_module(copy.deepcopy(modules[first])).state_dict())
    if spec.prune:
        heads = [name for name in module.state_dict() if _is_of(name, begins.new_heads)]
        drawn = getattr(module, "drawn", ()) if begins.weights is None else heads
        place = torch.device(device if device == "meta" else "cpu")
        module = module.to(place)  # where rules are asked: on each device they take the same out
        with refused_at(f"agents.{agent}"), guard.seeded(seed_of(plan, agent)), place:
            pruned(module, spec.prune, drawn, registry)
    if spec.quantize is not None:
        with refused_at(f"agents.{agent}.quantize"):
            quantize(module)
    return module.to(device)


def _plain(
    plan: Plan,
    agent: str,
    reading: Preprocessor,
    registry: Registry,
    modules: dict[str, nn.Module],
    device: str,
) -> nn.Module:
    """The module of a model, or of what Python gave, on a device."""
    spec, labels = plan.spec.agents[agent], known_classes(plan, agent, reading.table)
    if agent in modules:
        return unscale(plain_module(copy.deepcopy(modules[agent]))).to(device)
    where = f"agents.{agent}.model"
    if spec.model is None:
        raise MeshError("this agent has no model", where=where, instead="model: {mlp: {hidden: [64]}}")
    seeds = guard.seeded(seed_of(plan, agent))
    with bounded(where), seeds, torch.device(device if device == "meta" else "cpu"):
        if spec.model.is_import:
            classes = plan.answers.outputs(reading.table) if labels is None else len(labels)
            module = imported(spec.model, where, () if reading.texts else reading.shape(agent), classes)
        else:
            offer = registry.find("models", spec.model.name, where)
            try:
                module = _make(offer, spec.model.config, agent, plan, reading, labels)
            except MeshError as error:
                if not error.where.startswith("agents."):
                    error.where = f"agents.{agent}.{error.where or 'model'}"
                error.what += needed(plan, agent)
                raise
    if not isinstance(module, nn.Module):
        theirs = "" if spec.model.is_import else registry.theirs("models", spec.model.name)
        raise MeshError(
            f"{theirs or spec.model.name} made a {type(module).__name__}",
            where=where,
            instead="something that makes an nn.Module",
        )
    return module if device == "meta" else module.to(device)


@contextmanager
def refused_at(where: str) -> Iterator[None]:
    """What is refused meanwhile is refused at this place of the file."""
    try:
        yield
    except MeshError as error:
        error.where = f"{where}.{error.where}" if error.where else where
        raise


def imported(ref: ModelRef, where: str, shape: Sequence[int], classes: int, instead: str = "") -> Any:
    """Call what an import path names, a class or a function, with the settings that the file gives.

    `num_classes` and, of images, `in_chans` follow from the data where it takes them by name and the file is silent.
    """
    make = maker(ref.name, where, (nn.Module,), "nn.Module", instead=instead)
    known = {"num_classes": classes, **({"in_chans": shape[0]} if len(shape) == 3 else {})}
    takes = inspect.signature(make).parameters
    return make(**{name: value for name, value in known.items() if name in takes} | ref.config)


def known_classes(plan: Plan, agent: str, table: Table) -> list[int] | None:
    """The classes that an agent's outputs stand for, None for all; MeshError for what is not a class of the data."""
    labels, where = plan.spec.agents[agent].labels, f"agents.{agent}.labels"
    if labels is None:
        return None
    if plan.task_of(agent).outputs == "vocabulary":
        raise MeshError("the outputs of a language model are its tokens", where=where, instead="leave `labels` out")
    wrong = [number for number in labels if not 0 <= number < table.classes]
    if wrong:
        raise MeshError(f"the data have no class {wrong[0]}", where=where, instead=f"classes 0 to {table.classes - 1}")
    return labels


def _make(
    offer: ModelOffer, config: dict[str, Any], agent: str, plan: Plan, reading: Preprocessor, labels: list[int] | None
) -> Any:
    """Call a model's factory with its settings and what it is built for: samples of a shape, or encoded texts.

    ``labels``: the classes that it knows, None for all.
    """
    table = reading.table
    classes = plan.answers.outputs(table) if labels is None else len(labels)
    if reading.texts:
        encoder = reading.encoder(agent)
        return offer.make(
            {**config, "max_length": encoder.max_length},
            task=plan.task_of(agent).name,
            classes=classes,
            labels=table.labels if labels is None else [table.labels[n] for n in labels if table.labels],
            **encoder.facts,
        )
    names = table.labels if labels is None else [table.labels[n] for n in labels if table.labels]
    if offer.images:
        _refuse_pixels(agent, reading)
        own = import_path(offer.images, f"agents.{agent}.model")
        shape, task = torch.Size(reading.shape(agent)), plan.task_of(agent).name
        return own(offer.config.model_validate(config), task=task, input_shape=shape, classes=classes, labels=names)
    if offer.encoder:
        raise MeshError(
            "this model reads texts, and the data are numbers",
            where=f"agents.{agent}.model",
            instead="mlp, cnn ..., or a data set of texts",
        )
    more = {"labels": names} if offer.fixed else {}
    return offer.make(config, input_shape=torch.Size(reading.shape(agent)), classes=classes, **more)


def _refuse_pixels(agent: str, reading: Preprocessor) -> None:
    """MeshError where a model that prepares images itself would see others than pixels of 0 to 1."""
    if agent in reading.inputs:
        return
    if reading.prepared(agent) is not None:
        what = "this model prepares images itself, by its processor, and these are prepared before"
        raise MeshError(what, where=f"agents.{agent}.prepare", instead="prepare: []")
    few = reading.numbers(agent)[torch.arange(min(len(reading.table), LOOKED_AT), device="cpu")]
    low, high = (float(one) for one in few.aminmax())
    if low < -ROUNDING or high > 1 + ROUNDING:
        what = f"this model reads pixels of 0 to 1, and these are of {low:.3g} to {high:.3g}"
        raise MeshError(what, where=f"agents.{agent}.model", instead="images as a data set of images reads them")


def load_weights(module: nn.Module, path: str, where: str, new_head: Sequence[str] = ()) -> None:
    """Load a safetensors file into a module; names or shapes that do not fit are refused with both sides.

    ``new_head``: layers that stay as they were drawn, whatever the file has of them.
    """
    read_weights(module, Path(path), where, new_head=new_head)


def read_weights(module: nn.Module, path: Path, where: str, keep: bool = False, new_head: Sequence[str] = ()) -> None:
    """The same; ``keep``: floating numbers keep the type that they have in the file."""
    from safetensors.torch import load_file

    state = _from_file(load_file, path, where)
    if new_head:
        own = module.state_dict()
        _refuse_heads(own, new_head, f"{where.removesuffix('weights')}new_head")
        state = {name: one for name, one in state.items() if not _is_of(name, new_head)}
        state |= {name: one for name, one in own.items() if _is_of(name, new_head)}
    _refuse_unlike(module, state, path, where)
    if keep:
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if name in state:
                tensor.data = tensor.data.to(state[name].dtype)
    module.load_state_dict(state)


def _is_of(name: str, layers: Sequence[str]) -> bool:
    return any(name.startswith(f"{layer}.") for layer in layers)


def _refuse_heads(own: dict[str, Tensor], new_head: Sequence[str], where: str) -> None:
    for layer in new_head:
        if not any(_is_of(name, [layer]) for name in own):
            layers = {name.rpartition(".")[0] for name in own}
            what = f"this model has no layer {layer!r} with weights"
            raise MeshError(what, where=where, instead=nearest(layer, layers, "layers"))


def refuse_weights(module: nn.Module, path: Path, where: str) -> None:
    """MeshError where a file of weights, by its header, is not of this module, which may be without memory."""
    _refuse_unlike(module, _from_file(_without_memory, path, where), path, where)


def _without_memory(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118


def _from_file(read: Callable[[Path], dict[str, Tensor]], path: Path, where: str) -> dict[str, Tensor]:
    """What ``read`` gives of a file of weights. MeshError where it is none."""
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
        raise MeshError(
            f"cannot read weights: {what}",
            where=where,
            instead="a safetensors file, as a run writes: agents/NAME/model.safetensors",
        )
    try:
        return read(path)
    except Exception as error:  # of safetensors, by what is wrong with the file
        if path.suffix in PICKLED or is_zipfile(path):
            what = f"{path} is not a safetensors file, and nothing else is read: a pickle can run code"
            raise MeshError(what, where=where, instead=CONVERT.format(path.name, path.stem)) from None
        raise MeshError(f"cannot read weights: {error}", where=where, instead="a safetensors file") from None


def _refuse_unlike(module: nn.Module, state: dict[str, Tensor], path: Path, where: str) -> None:
    own = module.state_dict()
    names = sorted(own.keys() ^ state.keys())
    shapes = sorted(name for name in own if name in state and own[name].shape != state[name].shape)
    if not (wrong := names or shapes):
        return
    layers = {name.rpartition(".")[0] for name in names + shapes}
    anew = f", or new_head: {min(layers)}, which then starts anew" if len(layers) == 1 and min(layers) else ""
    raise MeshError(
        f"{path} does not fit this model, first at {wrong[0]!r}: {_shape(state, wrong[0])} in the file, "
        f"{_shape(own, wrong[0])} in the model",
        where=where,
        instead=f"weights saved from this model{anew if where.startswith('agents.') else ''}",
    )


def _shape(state: dict[str, Tensor], name: str) -> str:
    return f"shape {tuple(state[name].shape)}" if name in state else "nothing"


def output(value: Any) -> Any:
    """The logits in what a model returned: a tensor, made or not, `.logits` or `["logits"]` of it, or its first part.

    A dictionary without logits has to hold one tensor alone. TypeError for anything else.
    """
    if isinstance(value, Tensor | Lazy):
        return value
    found = getattr(value, "logits", None)
    if found is None and isinstance(value, Mapping):
        parts = list(value.values())
        found = value.get("logits", parts[0] if len(parts) == 1 or (parts and hasattr(value, "to_tuple")) else None)
    elif found is None and isinstance(value, tuple | list) and value:
        found = value[0]
    if not isinstance(found, Tensor | Lazy):
        holds = f" of {', '.join(map(str, value))}" if isinstance(value, Mapping) else ""
        raise TypeError(
            f"it returns a {type(value).__name__}{holds}; logits are a tensor, `.logits`, `['logits']`, or the first "
            "of a tuple"
        )
    return found


def plain_module(module: nn.Module) -> nn.Module:
    """A module without what ``torch.compile`` wraps around it or its parts, which would give its weights new names."""
    module = getattr(module, "_orig_mod", module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "_orig_mod"):
                setattr(parent, name, child._orig_mod)
    return module
