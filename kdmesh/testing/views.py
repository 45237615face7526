"""The contract of a view."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from kdmesh.hosts import guard
from kdmesh.offers import ViewOffer
from kdmesh.streams.table import Table
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here

BATCH = 6


class Views(Alike):
    """What contracts of views share: samples of ``shape``, without the batch axis, by default small images."""

    __test__ = False
    kind = "views"
    shape: ClassVar[tuple[int, ...]] = (1, 6, 6)

    def small_mesh(self, offer: ViewOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """Two agents that learn from labels, and one from the other; both see samples through it."""
        flows = [
            {"from": "labels", "to": ["a", "b"], "objective": "ce"},
            {"from": "a", "to": "b", "objective": "kl", "refresh": "step"},
        ]
        fields = small.mesh(("a", "b"), {"mlp": {"hidden": [6]}}, flows=flows)
        for agent in fields["agents"].values():
            agent["view"] = {"augment": [{offer.name: settings}]}
        fields["train"]["epochs"] = 2
        return fields, small.table(shape=self.shape)

    def given(self) -> Tensor:
        """Seeded samples ``[B, ...]``."""
        return torch.randn(BATCH, *self.shape, generator=torch.Generator().manual_seed(5))

    def made(self, offer: ViewOffer, settings: dict[str, Any]) -> Any:
        """One of a seed of its own."""
        return offer.make(settings, torch.randint(2**31, ()).item())

    def asked(self, offer: ViewOffer, thing: Any, number: int, at: At = here) -> Any:
        """How it sees two batches, in two draws."""
        x, ids = self.given(), torch.arange(BATCH).roll(number)
        return [thing(at(x[ids]), at(ids), draw) for draw in (number, number + 3)]


class ViewContract(Views):
    """Checks an augmentation on seeded samples of ``shape``, without the batch axis: by default small images."""

    __test__ = False

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

    def test_precision_is_kept(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """Samples of float64 and half precision keep their type, and are seen alike but for rounding."""
        rough, ids = self.given().bfloat16(), torch.arange(BATCH)
        expected = self.see(offer, settings, rough.float(), ids)
        for dtype, error in ((torch.float64, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)):
            x = rough.to(dtype)
            value = self.see(offer, settings, x.clone(), ids)
            try:
                guard.refuse_view(value, x)
            except ValueError as error_said:
                raise AssertionError(f"{dtype}: {error_said}") from None
            assert torch.allclose(value.float(), expected, atol=error * (1 + float(expected.abs().max()))), f"{dtype}"

    def test_draws_are_of_seed_id_and_draw(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """Where another seed changes what is seen, another draw does, and a sample of another id looks otherwise."""
        x, ids = self.given()[:1].expand(BATCH, *self.shape).contiguous(), torch.arange(BATCH)
        seeds = [offer.make(settings, seed)(x.clone(), ids, 0) for seed in range(6)]
        if all(torch.equal(one, seeds[0]) for one in seeds):
            return
        draws = [self.see(offer, settings, x.clone(), ids, draw) for draw in range(6)]
        assert not all(torch.equal(one, draws[0]) for one in draws), "it sees the same in every draw: `draw` is ignored"
        alike = all(torch.equal(sample, one[0]) for one in draws for sample in one)
        assert not alike, "it sees all samples of a batch alike: `ids` are ignored"

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
