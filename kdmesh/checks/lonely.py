"""Find batches that a model cannot train on, from the plan: batch norm fails on a batch of one sample."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError
from kdmesh.hosts.modes import train
from kdmesh.hosts.modules import output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan


def trains(plan: Plan, agent: str) -> bool:
    """Whether an agent is ever forwarded in train mode."""
    return next(_forwards(plan, agent), None) is not None


def complaints(
    module: nn.Module, held: Sequence[nn.Module], samples: Callable[[int], Any], rows: bool
) -> dict[int, str]:
    """Return the error that a model in train mode raises for a batch of 2 samples, and of 1, by the batch's size.

    ``held``: the parts that stay in eval mode; ``rows``: whether it gives a row for each sample.
    """
    found: dict[int, str] = {}
    train(module, True, held)
    with torch.no_grad(), torch.random.fork_rng(devices=()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for count in (2, 1):
            try:
                shape = output(module(samples(count))).shape
            except Exception as error:
                found[count] = f"{type(error).__name__}: {error}"
                continue
            if rows and count == 1 and (not shape or shape[0] != 1):  # of two samples, check says it itself
                found[count] = f"it gives outputs of shape {tuple(shape)}"
    module.eval()
    return found


def refuse(plan: Plan, found: Checked, agent: str, complaints: dict[int, str]) -> None:
    """Raise MeshError where training would give an agent a batch of a size that its model fails on.

    ``said``: the error of the model for batches of 2 and of 1 samples, as :func:`complaints` returns it.
    """
    for stream in _forwards(plan, agent) if complaints else ():
        settings, own = plan.train(agent), plan.spec.streams.get(stream)
        written = own is not None and own.generated_by is not None  # in batches of one size
        size = settings.batch_size if written else found.size(stream, agent)
        full = max(1, min(settings.batch_size, size))
        rest = 0 if settings.drop_last else size % full
        where = f"agents.{agent}.model"
        if complaints.get(min(full, 2)):
            more = "" if full > 1 or 2 in complaints else ", or batch_size: 2 and more"
            raise MeshError(
                f"{agent}'s model cannot train on a batch of {'one sample' if full == 1 else 'samples'}: "
                f"{complaints[min(full, 2)]}",
                where=where,
                instead=f"a model that can{more}",
            )
        if rest == 1 and 1 in complaints:
            raise MeshError(
                f"{agent}'s model cannot train on a batch of one sample ({complaints[1]}), and the last batch of "
                f"{stream!r} is one: {size} samples in batches of {full}",
                where=where,
                instead=f"`drop_last: true` under `train` of the mesh or of {agent}, or another batch_size",
            )


def _forwards(plan: Plan, agent: str) -> Iterator[str]:
    """The streams on which an agent is forwarded in train mode."""
    spec, owner = plan.spec.agents[agent], plan.owner[agent]
    ema = plan.spec.agents[owner].ema or spec.ema
    moves = owner in plan.trainable and plan.spec.agents[owner].update != "merged"
    usual = "train" if moves and (ema is None or ema.mode == "train") else "eval"
    for stage in plan.stages:
        for phase in stage.phases.values():
            for op in phase.ops:
                if op.kind in ("f", "f+") and op.node == agent and (op.mode or usual) == "train":
                    yield op.stream
