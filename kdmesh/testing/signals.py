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
from kdmesh.streams.table import Table
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, close, here

BATCH = 6


class SignalContract(Alike):
    """Checks a signal made of logits, or of a layer's output, ``shape`` without the batch axis: by default 5 classes.

    ``drawn``: it is random on purpose. The engine seeds its draws, so that they are the same on every host.
    ``taps``: the shapes, without the batch axis, of the layers that it needs, by name; of values between 0 and 1.
    """

    __test__ = False
    kind = "signals"
    shape: ClassVar[tuple[int, ...]] = (5,)
    taps: ClassVar[dict[str, tuple[int, ...]]] = {}

    def small_mesh(self, offer: SignalOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """An agent that learns from labels and sends it, a statistic once an epoch, and one that learns from it."""
        objective = {"probs": "kl", "marginals": "binary_kl", "logits": "mse"}.get(offer.form, "hint")
        objective, refresh = (objective, "step") if offer.aligned else ("prototype", "epoch")
        flow: dict[str, Any] = {"from": "a", "to": "b", "signal": {offer.name: settings}, "objective": objective}
        if offer.reads == "hidden":
            flow["tap"] = "layers.0"
        kind = "indicators" if offer.form == "marginals" else "classes"
        flows = [
            {"from": "labels", "to": ["a", "b"], "objective": small.LABELS[kind]},
            {**flow, "refresh": refresh},
        ]
        maps = any(len(shape) == 3 for shape in self.taps.values())
        own = {"cnn": {"width": 4, "depth": 3}} if maps else {"mlp": {"hidden": [6, 6, 6]}}
        fields = small.mesh(("a", "b"), own, small.task(kind), flows=flows)
        for agent in fields["agents"].values():
            agent["taps"] = {name: f"layers.{place % 3}" for place, name in enumerate(self.taps)}
        return fields, small.table(kind, (1, 8, 8) if maps else (6,))

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

    def made(self, offer: SignalOffer, settings: dict[str, Any]) -> Any:
        """What makes it."""
        return offer.make(settings)

    def asked(self, offer: SignalOffer, thing: Any, number: int, at: At = here) -> Any:
        """What it makes of a batch, and in another precision."""
        found = []
        for dtype in (torch.float32, torch.float64 if number else torch.float32):
            value = at((self.given() * (number + 1)).to(dtype).roll(number, 0))
            found.append(dense(self._made(offer, thing, value, at=at, dtype=dtype)))
        return found

    def call(self, offer: SignalOffer, settings: dict[str, Any], value: Tensor) -> Tensor:
        """Make the signal as the engine does, of seeded draws."""
        with guard.seeded(1):
            made: Tensor = self._make(offer, settings, value)
        return made

    def _make(
        self, offer: SignalOffer, settings: dict[str, Any], value: Tensor, module: nn.Module | None = None
    ) -> Any:
        return self._made(offer, offer.make(settings), value, module)

    def _made(
        self,
        offer: SignalOffer,
        make: Any,
        value: Tensor,
        module: nn.Module | None = None,
        at: At = here,
        dtype: torch.dtype = torch.float32,
    ) -> Any:
        if not offer.aligned:
            return making.statistic(offer, make, value, at(torch.arange(len(value)) % 3), 3)[0]
        draws = torch.Generator().manual_seed(8)
        shapes = self.taps.items()
        taps = {name: at(torch.rand(BATCH, *shape, generator=draws).to(dtype)) for name, shape in shapes}
        module = at((module or self.answering()).to(dtype))
        try:
            asked = (
                making.ask(make, value.roll(1, -1)) if "asked" in offer.needs else None
            )  # a reader says other things
            x, first = at(self.samples().to(dtype)), at is here
            return making.made(offer, make, value, x, module, taps, 9, first=first, asked=asked)
        except ValueError as error:
            raise AssertionError(str(error)) from None

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
            before, stood = {name: value.clone() for name, value in module.state_dict().items()}, _standing(module)
            with guard.seeded(1):
                try:
                    self._make(offer, settings, self.given(), module)
                except ValueError as error:
                    raise AssertionError(str(error)) from None
            after = module.state_dict()
            changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
            assert not changed, f"it changes {', '.join(changed)}"
            assert _standing(module) == stood, "it leaves the module in another mode, without gradients, or with hooks"

    def test_gives_a_row_for_each(self, offer: SignalOffer, settings: dict[str, Any]) -> None:
        """A finite tensor with a row for each that it is given; of form `probs`, rows that sum to 1. Of one that is not
        ``aligned``, as many rows whatever it is given."""
        try:
            value = self.call(offer, settings, self.given())
            if offer.aligned:
                guard.refuse_signal(value, self.given(), None, offer.form)
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

    def test_precision_is_kept(self, offer: SignalOffer, settings: dict[str, Any]) -> None:
        """Of float64 it is of that type, of half precision also float32; all are the same but for rounding."""
        rough = self.given().bfloat16()
        expected = dense(self.call(offer, settings, rough.float())).detach()
        for dtype, error in ((torch.float64, 1e-5), (torch.bfloat16, 4e-2), (torch.float16, 1e-2)):
            if offer.needs and dtype.itemsize < 4:
                continue  # modules of half precision are for a GPU
            with guard.seeded(1):
                found = dense(self._made(offer, offer.make(settings), rough.to(dtype), dtype=dtype)).detach()
            kept = found.dtype == dtype or (dtype.itemsize < 4 and found.dtype == torch.float32)
            assert kept, f"of {dtype} it gives {found.dtype}"
            if not self.drawn and not offer.estimate:  # an estimate may draw by the answer's bits
                assert close(found.float(), expected, atol=error * (1 + float(expected.abs().max()))), f"{dtype}"

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
            with guard.seeded(2):
                other = dense(self._make(offer, settings, self.given()))
            assert not torch.equal(one, other), "other seeds give the same draws: they are kept, or seeded by it"
            return
        try:
            with guard.seeded(1, strict=True):
                self._make(offer, settings, self.given())
        except ValueError as error:
            raise AssertionError(f"{error}; say `drawn = True` if it should") from None


def _standing(module: nn.Module) -> list[Any]:
    """How a module stands: modes, which weights want gradients, and hooks."""
    parts = [(part.training, len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
    return [*parts, *(weight.requires_grad for weight in module.parameters())]
