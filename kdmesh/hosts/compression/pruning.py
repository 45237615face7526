"""What a mesh says of pruning, done to a module before it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import FAULTS, MeshError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kdmesh.contracts.pruning import Pruning
    from kdmesh.plugins import Registry
    from kdmesh.spec import PruningRef

NOTE = "kdmesh_pruned"  # where a module has its record
ZEROED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Pruned:
    """What became of a module: its parameters before and after, how many of these stay 0, and which do not."""

    before: int
    after: int
    zeros: int
    left: dict[str, Tensor]

    def told(self) -> dict[str, int]:
        """The counts, as a summary has them."""
        return {"before": self.before, "after": self.after, **({"zeros": self.zeros} if self.left else {})}


def pruned(module: nn.Module, steps: Sequence[PruningRef], drawn: Collection[str], registry: Registry) -> None:
    """Prune a module in place, in this order. ``drawn``: its parameters that no file had.

    MeshError, with ``where`` from `prune` on, for what the module cannot be pruned by.
    """
    before, left, zeros = _count(module), dict[str, Tensor](), 0
    for number, step in enumerate(steps):
        where = f"prune.{number}.{step.name}"
        try:
            if (adapted := getattr(module, "adapted", None)) is not None:
                what = f"the weights of a model with an adapter ({adapted}) stay as they are"
                raise MeshError(what, instead=f"no `{adapted}`, or no `prune`")
            offer = registry.find("prunings", step.name)
            rule: Pruning = offer.make(step.config)
            if offer.takes == "units":
                _take(module, step.name, rule)
            else:
                left, zeros = _zeroed(module, rule, drawn)
        except MeshError as error:
            error.where = f"{where}.{error.where}" if error.where else where
            raise
        except FAULTS as error:
            registry.attribute_error("prunings", step.name, error, f"on a {type(module).__name__}", where)
    setattr(module, NOTE, Pruned(before, _count(module), zeros, left))


def pruned_of(module: nn.Module) -> Pruned | None:
    """What became of a module; None of one that was not pruned."""
    found: Pruned | None = getattr(module, NOTE, None)
    return found


def left_of(module: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters of which some values stay 0, each with which do not (bool)."""
    found, named = pruned_of(module), dict(module.named_parameters())
    return [] if found is None else [(named[name], mask) for name, mask in found.left.items()]


def _take(module: Any, name: str, rule: Pruning) -> None:
    """Give a model of transformers a smaller network."""
    if not hasattr(module, "become"):
        what = f"a {type(module).__name__} is no model of transformers, whose {name} could be left out"
        raise MeshError(what, instead="magnitude: {share: 0.5}, or a model with smaller settings")
    was, found = module.net, rule.smaller(module.net)
    if type(found) is not type(was):
        raise ValueError(f"it gave a {type(found).__name__}, not a {type(was).__name__}")
    module.become(found)


@torch.no_grad()
def _zeroed(module: nn.Module, rule: Pruning, drawn: Collection[str]) -> tuple[dict[str, Tensor], int]:
    """Put zeros into a module; by parameter which of its values are left, and how many are not.

    MeshError where there is no layer that has such weights.
    """
    whole = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}  # heads are tied to some
    taken = {id(part.weight) for part in module.modules() if isinstance(part, ZEROED)} - whole
    weights: dict[str, Tensor] = {
        name: one
        for name, one in module.named_parameters()
        if id(one) in taken and not any(f".{name}".endswith(f".{other}") for other in drawn)
    }
    if not weights:
        what = f"a {type(module).__name__} has no linear or convolutional layer whose weights were read"
        raise MeshError(what, instead="a model with one, or no `prune`")
    zeros = rule.zeros([one.numel() for one in weights.values()])
    left = dict(rule.left(weights))
    shapes = {name: one.shape for name, one in weights.items()}
    if {name: one.shape for name, one in left.items()} != shapes or any(
        one.dtype != torch.bool for one in left.values()
    ):
        raise ValueError("it gave other than a mask of bool for each weight, of its shape")
    found = zeros if next(iter(left.values())).is_meta else sum(int((~one).sum()) for one in left.values())
    if found != zeros:
        raise ValueError(f"it leaves out {found:,} values, and said {zeros:,}")
    for name, one in weights.items():
        one.mul_(left[name])
    return left, zeros


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
