"""How much memory a run takes, from the plan and what was found of the models without any; and what there is."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.graph.resources import Resources
from kdmesh.placement.timing import trains
from kdmesh.streams import host_memory

if TYPE_CHECKING:
    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan

PROCESS = 270 * 2**20  # bytes of an actor that has imported torch
FLOAT = 4  # bytes
STATES = {"sgd": 0, "rprop": 2, "rmsprop": 1, "adagrad": 1, "muon": 1}  # numbers that optimisers keep per weight
KEPT = 3  # what stands at a time of a batch, at least: what goes in or comes out, its probabilities, its gradient
GB = 2**30
SHOWN = 4  # agents that a message names


def machine() -> Resources:
    """What this machine has for a run."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Resources(cpus, torch.cuda.device_count(), float(host_memory.memory()))


def process(found: Checked) -> float:
    """Bytes of a host that holds no agent: an interpreter with torch, and the data."""
    return float(PROCESS + (0 if found.table.unread else found.table.x.nbytes))


def memory(plan: Plan, found: Checked, agents: list[str]) -> float:
    """Bytes of agents on the CPU: their weights and, where these train, gradients and what the optimiser keeps."""
    owners = dict.fromkeys(plan.owner[agent] for agent in agents)
    return float(sum(_kept(plan, found, owner) for owner in owners if plan.train(owner).device == "cpu"))


def refuse(plan: Plan, found: Checked) -> None:
    """Refuse agents that need more memory than this machine has, all together or, on a GPU, one alone."""
    limits = {"cpu": machine().memory}
    for device in {plan.train(owner).device for owner in plan.owner.values()} - {"cpu", "mps"}:
        if torch.cuda.is_available():
            limits[device] = float(torch.cuda.get_device_properties(device).total_memory)
    needs: dict[str, dict[str, float]] = {}
    for owner in dict.fromkeys(plan.owner.values()):
        device = plan.train(owner).device
        needs.setdefault(device if device in limits else "cpu", {})[owner] = _kept(plan, found, owner)
    for device, each in needs.items():
        if device == "cpu":  # hosts share it
            each[""] = process(found) + max(_batch(plan, found, owner) for owner in each)
        total = sum(each.values()) if device == "cpu" else max(each.values())
        if total > limits[device]:
            owners = sorted(filter(None, each), key=lambda owner: -each[owner])
            shown = "; ".join(_arithmetic(plan, found, owner) for owner in owners[:SHOWN])
            more = f"; and {len(owners) - SHOWN} more" if len(owners) > SHOWN else ""
            classes = f"; {found.table.classes:,} classes" if found.table.classes > len(found.table) else ""
            raise MeshError(
                f"this needs {total / GB:,.1f} GiB of memory, and {_here(device)} has {limits[device] / GB:,.1f}: "
                f"{shown}{more}{classes}",
                where=f"agents.{owners[0]}.model",
                instead="labels 0 .. C - 1 without large gaps, or a smaller `classes`"
                if classes
                else "smaller models, smaller batches, or a cluster that has it: --ray-address",
            )


def _here(device: str) -> str:
    return "this machine" if device == "cpu" else device


def _kept(plan: Plan, found: Checked, owner: str) -> int:
    """Bytes of weights, and of what is kept for those of them that train."""
    whole, trained = found.held[owner]
    return whole + (trained * (1 + _states(plan, owner)) if trains(plan, owner) else 0)


def _states(plan: Plan, owner: str) -> int:
    optimizer = plan.train(owner).optimizer
    return STATES.get(optimizer.name.lower(), 2) + (1 if optimizer.config.get("momentum") else 0)


def _batch(plan: Plan, found: Checked, owner: str) -> int:
    """Bytes of a batch of numbers and what a model says of it; of texts nothing, as their rows are cut by length."""
    if found.reading.texts:
        return 0
    rows = max(min(plan.train(owner).batch_size, len(found.table)), plan.forward_size(owner, len(found.table)))
    sample = math.prod(found.table.shape) + found.table.classes
    return rows * sample * FLOAT * KEPT


def _arithmetic(plan: Plan, found: Checked, owner: str) -> str:
    """Where an agent's bytes come from, in words."""
    whole, trained = found.held[owner]
    text = f"{owner} {_kept(plan, found, owner) / GB:,.1f} ({found.parameters[owner]:,} parameters, {whole / GB:,.1f}"
    if trains(plan, owner):
        name = plan.train(owner).optimizer.name
        states = f", {_states(plan, owner) * trained / GB:,.1f} of {name}" if _states(plan, owner) else ""
        text += f"; gradients {trained / GB:,.1f}{states}"
    if (batch := _batch(plan, found, owner) / GB) >= 0.05:
        text += f"; a batch {batch:,.1f}"
    return f"{text})"
