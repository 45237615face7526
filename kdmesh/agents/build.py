"""Build an agent's module: a built-in or offered model, an import path, or a module given from Python."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry


def origin(plan: Plan, agent: str, path: tuple[str, ...] = ()) -> str:
    """The agent with whose initial weights this one starts: itself, or whom it starts like, or follows."""
    if agent in path:
        circle = " -> ".join([*path[path.index(agent) :], agent])
        raise MeshError(
            f"agents start like each other in a circle: {circle}",
            where=f"agents.{agent}.init_of",
            instead="an agent with initial weights of its own",
        )
    spec = plan.spec.agents[agent]
    other = spec.init_of or (spec.ema.of if spec.ema is not None else None)
    if spec.seed is not None or spec.weights is not None or other is None:
        return agent
    return origin(plan, plan.owner[other], (*path, agent))


def seed_of(plan: Plan, agent: str) -> int:
    """The seed of an agent's initial weights: given for its origin, or made from the mesh's and the origin's name."""
    first = origin(plan, agent)
    seed = plan.spec.agents[first].seed
    return mix(plan.spec.seed, "init", first) if seed is None else seed


def build(
    plan: Plan,
    agent: str,
    shape: torch.Size,
    classes: int,
    registry: Registry,
    modules: dict[str, nn.Module],
    device: str = "cpu",
) -> nn.Module:
    """Return the module of a weights' owner, seeded, on a device (`meta` allocates nothing)."""
    spec = plan.spec.agents[agent]
    if agent in modules:
        return copy.deepcopy(modules[agent]).to(device)
    if spec.ema is not None and spec.model is None:
        return build(plan, plan.owner[spec.ema.of], shape, classes, registry, modules, device)
    where = f"agents.{agent}.model"
    if spec.model is None:
        raise MeshError("this agent has no model", where=where, instead="model: {mlp: {hidden: [64]}}")
    torch.manual_seed(seed_of(plan, agent))
    with torch.device(device if device == "meta" else "cpu"):
        if spec.model.is_import:
            module = import_path(spec.model.name, where)(**spec.model.config)
        else:
            offer = registry.find("models", spec.model.name, where)
            module = offer.make(spec.model.config, input_shape=shape, classes=classes)
    if not isinstance(module, nn.Module):
        raise MeshError(
            f"{spec.model.name} made a {type(module).__name__}",
            where=where,
            instead="something that makes an nn.Module",
        )
    return module if device == "meta" else module.to(device)


def import_path(path: str, where: str) -> Any:
    """Resolve ``package.module:Thing``."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise MeshError(f"cannot import {path!r}: {error}", where=where, instead="package.module:Thing") from None


def load_weights(module: nn.Module, path: str, where: str) -> None:
    """Load a safetensors file into a module; names or shapes that do not fit are refused with both sides."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise MeshError(f"cannot read weights: {error}", where=where, instead="a safetensors file") from None
    own = module.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or sorted(n for n in own if own[n].shape != state[n].shape)
    if wrong:
        raise MeshError(
            f"{path} does not fit this model, first at {wrong[0]!r}",
            where=where,
            instead="weights saved from this model",
        )
    module.load_state_dict(state)


def output(value: Any) -> Tensor:
    """The logits in what a model returned: a tensor, something with `.logits`, or the first of a tuple."""
    if isinstance(value, Tensor):
        return value
    logits = getattr(value, "logits", None)
    return logits if logits is not None else value[0]
