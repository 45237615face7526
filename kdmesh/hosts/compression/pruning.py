"""What a mesh says of pruning, done to a module before it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.hosts.compression import heads, layers, magnitude, neurons

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kdmesh.spec.prune import PruneSpec

STRUCTURED: dict[str, Any] = {"layers": layers.prune, "heads": heads.prune, "neurons": neurons.prune}
NOTE = "kdmesh_pruned"  # where a module has its record


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


def pruned(module: nn.Module, steps: Sequence[PruneSpec], drawn: Collection[str]) -> None:
    """Prune a module in place, in this order. ``drawn``: its parameters that no file had.

    MeshError, with ``where`` from `prune` on, for what the module cannot be pruned by.
    """
    before, left, zeros = _count(module), dict[str, Tensor](), 0
    for number, step in enumerate(steps):
        how, where = getattr(step, step.rule), f"prune.{number}.{step.rule}"
        try:
            if step.rule in STRUCTURED:
                _take(module, step.rule, how)
            else:
                left, zeros = magnitude.prune(module, how, drawn)
        except MeshError as error:
            error.where = f"{where}.{error.where}" if error.where else where
            raise
    setattr(module, NOTE, Pruned(before, _count(module), zeros, left))


def pruned_of(module: nn.Module) -> Pruned | None:
    """What became of a module; None of one that was not pruned."""
    found: Pruned | None = getattr(module, NOTE, None)
    return found


def left_of(module: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters of which some values stay 0, each with which do not (bool)."""
    found, named = pruned_of(module), dict(module.named_parameters())
    return [] if found is None else [(named[name], mask) for name, mask in found.left.items()]


def _take(module: Any, rule: str, how: Any) -> None:
    """Give a model of transformers a smaller network."""
    if not hasattr(module, "become"):
        what = f"a {type(module).__name__} is no model of transformers, whose {rule} could be left out"
        raise MeshError(what, instead="magnitude: {share: 0.5}, or a model with smaller settings")
    if module.adapted is not None:
        what = f"the weights of a model with an adapter ({module.adapted}) stay as they are"
        raise MeshError(what, instead=f"no `{module.adapted}`, or no `prune`")
    module.become(STRUCTURED[rule](module.net, how))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
