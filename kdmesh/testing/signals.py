"""The contract of a kind of signal."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from kdmesh.hosts import guard
from kdmesh.offers import SignalOffer
from kdmesh.signals import codecs
from kdmesh.signals.lazy import dense
from kdmesh.testing.base import Contract

BATCH = 6


class SignalContract(Contract):
    """Checks a signal made of logits, or of a layer's output, ``shape`` without the batch axis: by default 5 classes.

    ``drawn``: it is random on purpose. The engine seeds its draws, so that they are the same on every host.
    """

    __test__ = False
    kind = "signals"
    shape: ClassVar[tuple[int, ...]] = (5,)
    drawn: ClassVar[bool] = False

    def given(self) -> Tensor:
        """What it is made of: seeded values ``[B, ...]``."""
        return torch.randn(BATCH, *self.shape, generator=torch.Generator().manual_seed(5)) * 2

    def call(self, offer: SignalOffer, settings: dict[str, Any], value: Tensor) -> Tensor:
        """Make the signal as the engine does, of seeded draws."""
        with guard.seeded(1):
            made: Tensor = offer.make(settings)(value)
        return made

    def test_gives_a_row_for_each(self, offer: SignalOffer, settings: dict[str, Any]) -> None:
        """A finite tensor with a row for each that it is given; of form `probs`, rows that sum to 1."""
        try:
            value = self.call(offer, settings, self.given())
            guard.refuse_signal(value, BATCH, None)
        except ValueError as error:
            raise AssertionError(str(error)) from None
        value = dense(value)
        assert value.isfinite().all(), "its values are not finite"
        if offer.form == "probs":
            total = value.sum(-1)
            assert (value >= 0).all(), f"{value.min().item()} is below 0"
            assert torch.allclose(total, torch.ones_like(total), atol=1e-5), f"rows sum to {total.tolist()}"

    def test_input_is_not_changed(self, offer: SignalOffer, settings: dict[str, Any]) -> None:
        """What it is made of is what its sender trains with."""
        value = self.given()
        self.call(offer, settings, value)
        assert torch.equal(value, self.given()), "it changes what it is given in place"

    def test_packed_it_is_the_same(self, offer: SignalOffer, settings: dict[str, Any]) -> None:
        """What crosses between hosts and stands in a checkpoint is, restored, the same to the bit."""
        if offer.codec:
            codecs.add(offer.codec)
        value = self.call(offer, settings, self.given())
        try:
            guard.refuse_codec(value)
        except ValueError as error:
            raise AssertionError(str(error)) from None
        back = codecs.restore(*codecs.pack(value))
        assert torch.equal(dense(back), dense(value)), "restored, it gives other rows"

    def test_draws_are_declared(self, offer: SignalOffer, settings: dict[str, Any]) -> None:
        """Unless ``drawn``, it reads no default generator of torch, numpy or Python."""
        if self.drawn:
            one, two = (dense(self.call(offer, settings, self.given())) for _ in range(2))
            assert torch.equal(one, two), "equal seeds give other draws"
            return
        try:
            with guard.seeded(1, strict=True):
                offer.make(settings)(self.given())
        except ValueError as error:
            raise AssertionError(f"{error}; say `drawn = True` if it should") from None
