"""The contract of a kind of signal."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdmesh.hosts import guard, making
from kdmesh.offers import SignalOffer
from kdmesh.signals import codecs
from kdmesh.signals.lazy import dense
from kdmesh.testing.base import Contract

BATCH = 6


class SignalContract(Contract):
    """Checks a signal made of logits, or of a layer's output, ``shape`` without the batch axis: by default 5 classes.

    ``drawn``: it is random on purpose. The engine seeds its draws, so that they are the same on every host.
    ``taps``: the shapes, without the batch axis, of the layers that it needs, by name; of values between 0 and 1.
    """

    __test__ = False
    kind = "signals"
    shape: ClassVar[tuple[int, ...]] = (5,)
    drawn: ClassVar[bool] = False
    taps: ClassVar[dict[str, tuple[int, ...]]] = {}

    def given(self) -> Tensor:
        """What it is made of: seeded values ``[B, ...]``."""
        return torch.randn(BATCH, *self.shape, generator=torch.Generator().manual_seed(5)) * 2

    def samples(self) -> Tensor:
        """What the module sees: seeded samples ``[B, ...]``."""
        return torch.randn(BATCH, 3, 4, generator=torch.Generator().manual_seed(6))

    def answering(self) -> nn.Module:
        """What answers them with values of ``shape``, where the signal needs the module: seeded, in train mode."""
        with guard.seeded(7):
            body = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Tanh())
            return nn.Sequential(body, nn.Linear(8, math.prod(self.shape)), nn.Unflatten(1, self.shape))

    def call(self, offer: SignalOffer, settings: dict[str, Any], value: Tensor) -> Tensor:
        """Make the signal as the engine does, of seeded draws."""
        with guard.seeded(1):
            made: Tensor = self._make(offer, settings, value)
        return made

    def _make(
        self, offer: SignalOffer, settings: dict[str, Any], value: Tensor, module: nn.Module | None = None
    ) -> Any:
        if not offer.aligned:
            return making.statistic(offer, offer.make(settings), value, torch.arange(len(value)) % 3, 3)[0]
        draws = torch.Generator().manual_seed(8)
        taps = {name: torch.rand(BATCH, *shape, generator=draws) for name, shape in self.taps.items()}
        asked = module or self.answering()
        return making.made(offer, offer.make(settings), value, self.samples(), asked, taps, 9, first=True)

    def test_reader_can_learn_from_its_own(self, offer: SignalOffer, settings: dict[str, Any]) -> None:
        """Where the reader makes it, too (``both``): a gradient reaches the module or the value that it is made of."""
        if not offer.both:
            return
        module, value = self.answering(), self.given().requires_grad_()
        with guard.seeded(1):
            made = self._make(offer, settings, value, module)
        assert made.requires_grad, "of the reader's own it gives something without gradient (create_graph=True?)"
        leaves = [value, *module.parameters()]
        found = torch.autograd.grad(made.pow(2).sum(), leaves, allow_unused=True)
        assert any(one is not None and bool(one.any()) for one in found), "its gradient is 0 everywhere"

    def test_module_is_as_before(self, offer: SignalOffer, settings: dict[str, Any]) -> None:
        """Weights, their gradients, buffers and the modes of all parts stand where they stood, in train and in eval."""
        if "module" not in offer.needs:
            return
        for training in (True, False):
            module = self.answering().train(training)
            before = {name: value.clone() for name, value in module.state_dict().items()}
            with guard.seeded(1):
                try:
                    self._make(offer, settings, self.given(), module)
                except ValueError as error:
                    raise AssertionError(str(error)) from None
            after = module.state_dict()
            changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
            assert not changed, f"it changes {', '.join(changed)}"

    def test_gives_a_row_for_each(self, offer: SignalOffer, settings: dict[str, Any]) -> None:
        """A finite tensor with a row for each that it is given; of form `probs`, rows that sum to 1. Of one that is not
        ``aligned``, as many rows whatever it is given."""
        try:
            value = self.call(offer, settings, self.given())
            if offer.aligned:
                guard.refuse_signal(value, BATCH, None)
        except ValueError as error:
            raise AssertionError(str(error)) from None
        if not offer.aligned:
            fewer = self.call(offer, settings, self.given()[: BATCH // 2])
            assert fewer.shape == value.shape, f"of fewer samples it gives {list(fewer.shape)}, not {list(value.shape)}"
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
                self._make(offer, settings, self.given())
        except ValueError as error:
            raise AssertionError(f"{error}; say `drawn = True` if it should") from None
