"""Stand-ins for models: random outputs and layers of known shapes, with parameters of known kinds, and no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from kdmesh.signals.lazy import FactoredLogits, Lazy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.hosts.rehearsal import Kind

NARROW = 4  # values of the hidden rows that a stand-in's wide last layer maps to logits


class Given(NamedTuple):
    """What a layer gives: its shape without the batch axis, its type, and what it has rows of."""

    shape: torch.Size
    dtype: torch.dtype
    per: str = "samples"  # samples | units | tokens


class StandIn(nn.Module):
    """Answers as a model does whose outputs and layers are ``given`` by path ("": the outputs), with random numbers.

    Logits are standard normal; layers are between 0 and 1, as shares of attention and what leaves a ReLU are. A
    gradient reaches every parameter, and samples that require one; ``kinds`` says which parameters there are.
    ``projects``: logits are `FactoredLogits`.
    """

    def __init__(self, given: Mapping[str, Given], kinds: Iterable[Kind], projects: bool = False) -> None:
        super().__init__()
        self.given, self.projects = dict(given), projects
        self.own = nn.ParameterList(
            nn.Parameter(torch.full(shape, 0.01, dtype=dtype)) for shape, dtype in sorted(kinds, key=str)
        )
        self.head = nn.Buffer(torch.randn(given[""].shape[0], NARROW)) if projects else None
        for path in filter(None, given):
            parent: nn.Module = self
            for name in path.split("."):
                if name not in dict(parent.named_children()):
                    parent.add_module(name, nn.Identity())
                parent = parent.get_submodule(name)

    def rows(self, path: str) -> str:
        """What a layer's value has rows of; "": the outputs."""
        return self.given[path].per

    def forward(self, x: Any) -> Tensor | Lazy:
        """Answer samples or tokens."""
        moved: Any = sum((parameter.float().mean() for parameter in self.own), torch.zeros(()))
        if isinstance(x, Tensor) and x.requires_grad:  # for signals that are gradients of samples
            moved = (1 + moved) * (1 + x.float().mean())
        for path, given in self.given.items():
            if path:
                value = torch.rand(_rows(x, given.per), *given.shape) + moved
                self.get_submodule(path)(value.to(x.device, given.dtype))
        outputs, rows = self.given[""], _rows(x, self.given[""].per)
        if self.head is not None:
            hidden = torch.randn(rows, NARROW) + moved
            return FactoredLogits(hidden.to(x.device, outputs.dtype), self.head.to(outputs.dtype), None)
        kind = x.device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else outputs.dtype
        return (torch.randn(rows, *outputs.shape) + moved).to(x.device, cast)


def _rows(x: Any, per: str) -> int:
    """How many rows an answer has."""
    return len(x) if per == "samples" or isinstance(x, Tensor) else len(x.units if per == "units" else x.tokens)
