"""The contract of a view that mixes the samples of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdmesh.hosts import guard
from kdmesh.offers import ViewOffer
from kdmesh.streams.views import Mixed
from kdmesh.testing.views import BATCH, Views


class MixContract(Views):
    """Checks a view that mixes batches, on seeded samples of ``shape``, without the batch axis."""

    __test__ = False

    def mix(
        self, offer: ViewOffer, settings: dict[str, Any], x: Tensor, draw: int = 0, seed: int = 7, strict: bool = False
    ) -> Mixed:
        """The batch as one of a new view mixes it. AssertionError where it does not say what it mixed."""
        try:
            with guard.seeded(1, strict=strict):
                value = offer.make(settings, seed)(x.clone(), torch.arange(len(x)), draw)
            found = guard.mixed(value, x)
            guard.refuse_view(found.x, x)
        except ValueError as error:
            raise AssertionError(str(error)) from None
        return found

    def test_says_what_it_mixed(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """A finite batch of the shape and type that it is given, a partner for each sample and shares of 0 to 1."""
        assert self.mix(offer, settings, self.given()).x.isfinite().all(), "its values are not finite"

    def test_precision_is_kept(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """Batches of float64 and half precision keep their type, and are mixed alike but for rounding."""
        rough = self.given().bfloat16()
        expected = self.mix(offer, settings, rough.float())
        for dtype, error in ((torch.float64, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)):
            found = self.mix(offer, settings, rough.to(dtype))
            assert torch.equal(found.partner, expected.partner), f"{dtype}: other partners"
            assert torch.allclose(found.x.float(), expected.x, atol=error * 4), f"{dtype}"

    def test_shares_are_of_what_is_there(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """Of samples that are each constant, a row's mean is the mean of both by their shares."""
        values = torch.randn(BATCH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        x = values.view(-1, *[1] * len(self.shape)).expand(BATCH, *self.shape).contiguous()
        for draw in range(6):
            found = self.mix(offer, settings, x, draw)
            share = found.share if isinstance(found.share, float) else found.share.double()
            expected = share * values + (1 - share) * values[found.partner]
            said = f"draw {draw}: its shares are not those of the samples in its rows"
            assert torch.allclose(found.x.flatten(1).mean(1), expected, atol=1e-5), said

    def test_draws_are_of_seed_and_draw(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """Another seed, and another draw, mix otherwise; what is called again mixes alike."""
        x = self.given()
        once = self.mix(offer, settings, x)
        assert torch.equal(once.x, self.mix(offer, settings, x).x), "it mixes otherwise when it is called again"
        seeds = [self.mix(offer, settings, x, seed=seed).x for seed in range(6)]
        assert not all(torch.equal(one, seeds[0]) for one in seeds), "it mixes alike whatever the seed"
        draws = [self.mix(offer, settings, x, draw).x for draw in range(6)]
        assert not all(torch.equal(one, draws[0]) for one in draws), "it mixes alike in every draw: `draw` is ignored"

    def test_draws_from_its_own_generator(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """Randomness comes from its seed and the draw: no default generator is read."""
        self.mix(offer, settings, self.given(), strict=True)

    def test_takes_a_single_sample(self, offer: ViewOffer, settings: dict[str, Any]) -> None:
        """A batch of one is mixed with itself."""
        x = self.given()[:1]
        assert torch.allclose(self.mix(offer, settings, x).x, x, atol=1e-6), "it makes another sample of a single one"
