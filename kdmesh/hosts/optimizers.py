"""Optimisers and schedules of torch, by their names and settings in a file."""

from __future__ import annotations

import inspect
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kdmesh.errors import MeshError, nearest
from kdmesh.hosts.arguments import arguments, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.spec import TrainSpec
    from kdmesh.spec.base import ScheduleRef

_CLASSES = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
}
_NEED_CODE = {  # of torch.optim.lr_scheduler, by why no file can ask for them
    "ReduceLROnPlateau": "it is given a metric at every step, and these schedules count updates",
    "SequentialLR": "it is made of other schedules, which a file cannot hold",
    "ChainedScheduler": "it is made of other schedules, which a file cannot hold",
    "LambdaLR": "it needs a function, which a file cannot hold",
    "MultiplicativeLR": "it needs a function, which a file cannot hold",
}
_OURS: dict[str, Callable[[float], float]] = {  # the factor of the rate, by the share of the updates that is done
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
}
WARMUP = "a number of updates (warmup: 100), or a share of all of them (warmup: 0.1)"


def load_optimizers() -> None:
    """Have torch import what its first optimiser needs, seconds of it: within a stage, a Ctrl-C would wait for that."""
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])


def make_optimizer(parameters: list[nn.Parameter], settings: TrainSpec, where: str) -> torch.optim.Optimizer:
    """Any class of torch.optim that needs nothing but gradients, by its name; fused where torch has it for this device.

    ``where``: the section of the file that names it, for errors.
    """
    ref, where = settings.optimizer, f"{where}.optimizer"
    kind = _CLASSES.get(ref.name.lower())
    if kind is None:
        raise MeshError(
            f"unknown optimizer {ref.name!r}",
            where=where,
            instead=nearest(ref.name.lower(), _CLASSES, "optimisers of torch.optim"),
        )
    if inspect.signature(kind.step).parameters["closure"].default is inspect.Parameter.empty:
        raise MeshError(
            f"{kind.__name__} computes the loss several times in an update: an update here is one backward pass",
            where=where,
            instead="adamw, sgd, or another optimiser of torch.optim",
        )
    where = f"{where}.{ref.name}"
    known = arguments(kind, ref.config, where)
    config: dict[str, Any] = {
        name: list(map(float, value)) if _whole(value) else value for name, value in ref.config.items()
    }
    try:
        if "fused" in known and "foreach" not in config and not config.get("dampening"):
            with suppress(RuntimeError):  # no fused kernel for these parameters' device or dtype
                return kind(parameters, **{"fused": True} | config)
        return kind(parameters, **config)
    except Exception as error:
        instead = f"other settings, see torch.optim.{kind.__name__}"
        raise refused(kind, config, error, where, instead, lambda rest: kind(parameters, **rest)) from None


def _whole(value: Any) -> bool:
    """Whether a list of numbers has whole ones, where torch wants floats: ``betas: [0, 0.9]``."""
    return isinstance(value, list) and any(isinstance(one, int) for one in value) and None not in value


def make_schedule(optimizer: torch.optim.Optimizer, ref: ScheduleRef | None, updates: int, where: str) -> Any:
    """A schedule over so many ``updates``, which moves at each; None where the rate stays.

    constant, cosine and linear (both to zero), each with a warmup, or a class of torch.optim.lr_scheduler.
    """
    if ref is None or (ref.name == "constant" and not ref.config):
        return None
    lr, where = torch.optim.lr_scheduler, f"{where}.schedule"
    if ref.name in _OURS:
        return lr.LambdaLR(optimizer, _factor(ref, updates, f"{where}.{ref.name}"))
    if ref.name in _NEED_CODE:
        raise MeshError(
            f"no {ref.name} here: {_NEED_CODE[ref.name]}", where=where, instead="cosine, linear, StepLR ..."
        )
    kind = getattr(lr, ref.name, None)
    if not (isinstance(kind, type) and issubclass(kind, lr.LRScheduler)) or ref.name.endswith("LRScheduler"):
        known = [*_OURS, *(n for n in vars(lr) if n.endswith(("LR", "Restarts")) and n not in _NEED_CODE)]
        raise MeshError(f"unknown schedule {ref.name!r}", where=where, instead=nearest(ref.name, known, "schedules"))
    where = f"{where}.{ref.name}"
    arguments(kind, ref.config, where)
    try:
        return kind(optimizer, **ref.config)
    except Exception as error:
        instead = f"settings for {updates} updates; see torch.optim.lr_scheduler.{ref.name}"
        raise refused(kind, ref.config, error, where, instead, lambda rest: kind(optimizer, **rest)) from None


def counts_all(ref: ScheduleRef) -> bool:
    """Whether a schedule's first updates depend on how many there will be in all."""
    warmup = ref.config.get("warmup", 0)
    share = isinstance(warmup, int | float) and 0 < warmup < 1
    return ref.name in _OURS and (ref.name != "constant" or share)


def _factor(ref: ScheduleRef, updates: int, where: str) -> Callable[[int], float]:
    """The factor of the rate at each update, of one of our own schedules."""
    if unknown := set(ref.config) - {"warmup"}:
        raise MeshError(f"unknown setting {min(unknown)!r}", where=where, instead="warmup: updates")
    warmup, shape = warmup_of(ref, updates, where), _OURS[ref.name]

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        return shape(min(1.0, (update - warmup) / max(1, updates - warmup)))

    return factor


def warmup_of(ref: ScheduleRef, updates: int, where: str) -> int:
    """The updates of a warmup: a whole number of them, or, between 0 and 1, a share of all, rounded up."""
    given = ref.config.get("warmup", 0)
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if number and 0 < given < 1:
        return math.ceil(given * updates)
    if not number or not (0 <= given < math.inf) or given != int(given):
        raise MeshError(f"{given!r} is not a warmup", where=f"{where}.warmup", instead=WARMUP)
    return int(given)
