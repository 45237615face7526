"""The contract of a view."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from kdmesh.hosts import guard
from kdmesh.offers import ViewOffer
from kdmesh.testing.base import Contract

BATCH = 6


class ViewContract(Contract):
    """Checks an augmentation on seeded samples of ``shape``, without the batch axis: by default small images."""

    __test__ = False
    kind = "views"
    shape: ClassVar[tuple[int, ...]] = (1, 6, 6)

    def given(self) -> Tensor:
        """Seeded samples ``[B, ...]``."""
        return torch.randn(BATCH, *self.shape, generator=torch.Generator().manual_seed(5))

    def see(self, offer: ViewOffer, settings: dict[str, Any], x: Tensor, ids: Tensor, draw: int = 0) -> Tensor:
        """The samples as one of a new view, of a seed of its own, sees them."""
        made: Tensor = offer.make(settings, 7)(x, ids, draw)
        return made

    def test_keeps_shape_and_type(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """Finite samples of the shape and type that it is given."""
        value = self.see(offer, settings, self.given(), torch.arange(BATCH))
        try:
            guard.refuse_view(value, self.given())
        except ValueError as error:
            raise AssertionError(str(error)) from None
        assert value.isfinite().all(), "its values are not finite"

    def test_input_is_not_changed(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """Other agents read the same samples."""
        x = self.given()
        self.see(offer, settings, x, torch.arange(BATCH))
        assert torch.equal(x, self.given()), "it changes what it is given in place"

    def test_draws_from_its_own_generator(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """Randomness comes from its seed, the sample's id and the draw: no default generator is read."""
        try:
            with guard.seeded(1, strict=True):
                self.see(offer, settings, self.given(), torch.arange(BATCH))
        except ValueError as error:
            raise AssertionError(str(error)) from None

    def test_a_sample_does_not_depend_on_its_batch(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """In another batch, and in another order, a sample looks the same; what is called again gives the same."""
        x, ids, order = self.given(), torch.arange(BATCH), torch.tensor([4, 1, 3])
        for draw in (0, 3):
            whole = self.see(offer, settings, x, ids, draw)
            part = self.see(offer, settings, x[order], ids[order], draw)
            assert torch.equal(part, whole[order]), f"draw {draw}: a sample depends on the others of its batch"
