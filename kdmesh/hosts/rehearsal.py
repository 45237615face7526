"""Try an optimiser and its schedule over the planned updates, on next to nothing, before anything trains."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kdmesh.errors import MeshError
from kdmesh.hosts.arguments import said, shown
from kdmesh.hosts.optimizers import make_optimizer, make_schedule, warmup_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kdmesh.spec import TrainSpec

    Kind = tuple[tuple[int, ...], torch.dtype]

WALK = 1000  # updates of a schedule that are made one by one
NEAR = 2  # and so many about each number that its settings name


def kinds_of(parameters: Iterable[nn.Parameter]) -> frozenset[Kind]:
    """The kinds of parameters that an optimiser tells apart: number of axes and type, each of at most 2 elements."""
    return frozenset((tuple(min(n, 2) for n in p.shape), p.dtype) for p in parameters if p.requires_grad)


def rehearse(parameters: Iterable[Kind], settings: TrainSpec, updates: int, at: tuple[str, str]) -> list[str]:
    """Make two updates of parameters of these kinds, and move the schedule over all of the ``updates`` that it meets.

    ``at``: the sections of the file that name the optimiser and the schedule. Returns what is worth saying; MeshError
    for what torch refuses, now or at a later update, and for a rate or momentum that leaves its bounds.
    """
    kinds = sorted(parameters, key=str)
    weights = [nn.Parameter(torch.zeros(shape, dtype=dtype, device=settings.device)) for shape, dtype in kinds]
    optimizer = make_optimizer(weights or [nn.Parameter(torch.zeros(2, 2))], settings, at[0])
    _bounded(optimizer, 0, f"{at[0]}.optimizer.{settings.optimizer.name}")
    for parameter in weights:
        parameter.grad = torch.ones_like(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a schedule that moves without its optimiser, and of torch's own plans
        schedule = make_schedule(optimizer, settings.schedule, max(updates, 1), at[1])
        try:
            for _ in range(2 if weights else 0):
                optimizer.step()
        except Exception as error:
            raise MeshError(
                f"{type(optimizer).__name__} cannot update these weights: {said(error)}",
                where=f"{at[0]}.optimizer.{settings.optimizer.name}",
                instead=f"other settings, or another optimiser; see torch.optim.{type(optimizer).__name__}",
            ) from None
        rates = _walk(optimizer, schedule, settings, updates, at[1])
    return _notes(settings, updates, rates)


def _walk(optimizer: torch.optim.Optimizer, schedule: Any, settings: TrainSpec, updates: int, at: str) -> set[float]:
    """Move a schedule over the updates that matter, and refuse what is wrong at any; the rates that were met."""
    if schedule is None or settings.schedule is None:
        return {float(optimizer.param_groups[0]["lr"])}
    name = settings.schedule.name
    where = f"{at}.schedule.{name}" if settings.schedule.config else f"{at}.schedule"
    rates = {_bounded(optimizer, 0, where)}
    for first, last in _spans(updates, settings.schedule.config):
        for update in range(first, last + 1):
            try:
                if update == first > 1:
                    schedule.step(update)  # jumps there
                else:
                    schedule.step()
            except Exception as error:
                raise MeshError(
                    f"{name} of {shown(settings.schedule.config)} fails at update {update} of {updates}: {said(error)}",
                    where=where,
                    instead=f"settings for {updates} updates: schedules count optimiser updates, not epochs",
                ) from None
            rates.add(_bounded(optimizer, update, where))
    return rates


def _spans(updates: int, config: dict[str, Any]) -> list[tuple[int, int]]:
    """The updates to visit: all of them where they are few, else the first, the last, and those about a setting."""
    if updates <= WALK:
        return [(1, updates)]
    marks = sorted({int(number) for number in _numbers(config) if WALK < number < updates})
    spans = [(1, WALK), *((mark - NEAR, mark + NEAR) for mark in marks), (updates - WALK // 10, updates)]
    return [(first, min(last, updates)) for first, last in spans]


def _numbers(value: Any) -> Iterator[float]:
    """Every number within a setting."""
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _bounded(optimizer: torch.optim.Optimizer, update: int, where: str) -> float:
    """The rate at an update; MeshError where a setting of the optimiser is not a number, or out of its bounds."""
    (group,) = optimizer.param_groups
    values = [(name, value) for name in group if name != "params" for value in _numbers(group[name])]
    for name, value in values:
        low, high = {"lr": (0.0, math.inf), "momentum": (0.0, math.inf), "betas": (0.0, 1.0)}.get(
            name, (-math.inf, math.inf)
        )
        if not low <= value < high:
            raise MeshError(
                f"`{name}` of {type(optimizer).__name__} becomes {value:.4g} at update {update}",
                where=where,
                instead=f"settings that keep it at {low:g} or more"
                + (f" and below {high:g}" if high < math.inf else ""),
            )
    return float(group["lr"])


def _notes(settings: TrainSpec, updates: int, rates: set[float]) -> list[str]:
    """What is not wrong, and hardly meant."""
    notes = []
    if updates and rates == {0.0}:
        notes.append("the learning rate is 0 throughout: nothing will be learned")
    schedule = settings.schedule
    if schedule is not None and updates and len(rates) == 1:
        notes.append(
            f"the schedule {schedule.name} never changes the learning rate in the {updates} updates that there are"
        )
    if schedule is not None and schedule.config.get("warmup") and warmup_of(schedule, updates, "") >= updates > 0:
        notes.append(
            f"the warmup of {warmup_of(schedule, updates, '')} updates is as long as the training, {updates} updates: "
            "the learning rate never reaches its full value"
        )
    return notes
