"""Train and eval mode of modules of which some parts keep the mode that their owner gave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


def held(module: nn.Module) -> list[nn.Module]:
    """The parts in eval mode of a module in train mode: their owner put them there, to freeze a batch norm say.

    A module that is in eval mode as a whole, as most are that were loaded, holds nothing.
    """
    return [part for part in module.modules() if not part.training] if module.training else []


def train(module: nn.Module, mode: bool, held: Sequence[nn.Module]) -> None:
    """Put a module into train or eval mode, but for what is held in eval mode."""
    module.train(mode)
    if mode:
        for part in held:
            part.training = False
