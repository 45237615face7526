"""How an agent sees a sample: its augmentations in order, reproducible by sample id; and a batch, where these mix."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Augmentation(Protocol):
    """A built view. A sample's value depends on the view's seed, the sample's id and the draw, never on the batch."""

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Tensor:
        """Return ``x [B, ...]`` augmented, in a tensor of its own; ``ids [B]`` int64."""


class Mixed(NamedTuple):
    """A batch whose row i is made of its samples i and ``partner[i]``, by ``share`` and ``1 - share``.

    ``x [B, ...]``; ``partner [B]`` int64; ``share``: one for all rows, or ``[B]`` float32; of 0 to 1.
    """

    x: Tensor
    partner: Tensor
    share: float | Tensor


class Mixing(Protocol):
    """A built view that mixes the samples of a batch. ``draw``: a number for each step, of its own."""

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Mixed:
        """Return the batch ``x [B, ...]`` mixed, and what of what; ``ids [B]`` int64."""


class View:
    """Augmentations applied in order. With ``draws`` a sample has so many different values, else one per epoch."""

    def __init__(self, augment: Sequence[Augmentation], draws: int | None) -> None:
        self.augment = list(augment)
        self.draws = draws

    def draw(self, epoch: int) -> int:
        """Return the number of the draw that an epoch sees: part of the key under which signals are stored."""
        return epoch % self.draws if self.draws else epoch

    def __call__(self, x: Tensor, ids: Tensor, epoch: int) -> Tensor:
        """Return what the agent sees of ``x [B, ...]`` in an epoch; without augmentations, ``x`` itself."""
        for augmentation in self.augment:
            x = augmentation(x, ids, self.draw(epoch))
        return x
