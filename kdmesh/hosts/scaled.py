"""The scaling of a data set's reader as part of a saved model, so that it takes values of the source as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Scaling:
    """A hook before a module's forward: divides values as the source has them, and leaves those as kdmesh reads them.

    The source's own are whole numbers, of any dtype, beyond 1; what was divided lies within 0 .. 1, in fractions.
    """

    def __init__(self, divided_by: float) -> None:
        self.divided_by = divided_by

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs of the forward, the first one as the module learned it."""
        x, *rest = inputs
        return (self.scaled(x), *rest) if isinstance(x, Tensor) else inputs

    def scaled(self, x: Tensor) -> Tensor:
        """``x [B, ...]`` as float32 in the range that the module learned."""
        if not x.is_floating_point():
            return x.float().div(self.divided_by)
        raw = x.numel() > 0 and bool(x.max() > 1) and torch.equal(x, x.round())
        return x.div(self.divided_by) if raw else x


def scale(module: nn.Module, divided_by: float) -> nn.Module:
    """Let a module also take the source's own values; the module is changed, and returned."""
    module.register_forward_pre_hook(Scaling(divided_by))
    return module


def unscale(module: nn.Module) -> nn.Module:
    """Take that away, everywhere in a module: a mesh gives samples as they are read."""
    for part in module.modules():
        for key in [key for key, hook in part._forward_pre_hooks.items() if isinstance(hook, Scaling)]:
            del part._forward_pre_hooks[key]
    return module
