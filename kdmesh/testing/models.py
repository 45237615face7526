"""The contract of a model."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdmesh.agents.build import output
from kdmesh.offers import ModelOffer
from kdmesh.testing.base import Contract


class ModelContract(Contract):
    """Checks a model on samples of each of ``shapes`` (without the batch axis) and so many ``classes``."""

    __test__ = False
    kind = "models"
    shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 8, 8),)
    classes: ClassVar[int] = 5

    def model(self, offer: ModelOffer, settings: dict[str, Any], shape: tuple[int, ...], seed: int = 0) -> nn.Module:
        """The model as an agent builds it, from a seed."""
        torch.manual_seed(seed)
        made: nn.Module = offer.make(settings, input_shape=torch.Size(shape), classes=self.classes)
        assert isinstance(made, nn.Module), f"the factory made a {type(made).__name__}"
        return made

    @staticmethod
    def samples(shape: tuple[int, ...], size: int = 6) -> Tensor:
        """A seeded batch."""
        return torch.randn(size, *shape, generator=torch.Generator().manual_seed(4))

    def test_gives_one_logit_per_class(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """Finite logits ``[B, classes]`` in training and evaluation; the samples are not changed."""
        for shape in self.shapes:
            model = self.model(offer, settings, shape)
            for mode in (True, False):
                x = self.samples(shape)
                logits = output(model.train(mode)(x))
                assert logits.shape == (len(x), self.classes), f"{shape}: logits of shape {tuple(logits.shape)}"
                assert logits.isfinite().all(), f"{shape}: logits are not finite"
                assert torch.equal(x, self.samples(shape)), f"{shape}: the samples were changed in place"

    def test_builds_on_meta(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """`kdmesh check` builds and runs the model without memory."""
        for shape in self.shapes:
            with torch.device("meta"):
                model = self.model(offer, settings, shape).eval()
                logits = output(model(torch.empty(2, *shape)))
            assert {p.device.type for p in model.parameters()} <= {"meta"}, f"{shape}: parameters off the meta device"
            assert logits.shape == (2, self.classes)

    def test_equal_seeds_give_equal_weights(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """Initial weights come from torch's default generator alone."""
        for shape in self.shapes:
            one, two, other = (self.model(offer, settings, shape, seed).state_dict() for seed in (1, 1, 2))
            assert all(torch.equal(one[key], two[key]) for key in one), f"{shape}: equal seeds give different weights"
            assert any(not torch.equal(one[key], other[key]) for key in one), f"{shape}: the seed does not matter"

    def test_gradient_reaches_every_parameter(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """Every parameter takes part in the logits."""
        for shape in self.shapes:
            model, x = self.model(offer, settings, shape).train(), self.samples(shape, 16)
            nn.functional.cross_entropy(output(model(x)), torch.arange(len(x)) % self.classes).backward()
            idle = [
                name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
            ]
            assert not idle, f"{shape}: no gradient reaches {', '.join(idle)}"

    def test_evaluation_is_a_function_of_the_sample(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """In eval mode nothing is drawn, and the other samples of a batch do not matter."""
        for shape in self.shapes:
            model, x = self.model(offer, settings, shape).eval(), self.samples(shape)
            with torch.no_grad():
                whole, again, part = output(model(x)), output(model(x)), output(model(x[1:3]))
            assert torch.equal(whole, again), f"{shape}: two evaluations differ"
            torch.testing.assert_close(part, whole[1:3], atol=1e-5, rtol=1e-4)

    def test_state_reads_back(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """A trained model's state, loaded into a new one, gives the same logits."""
        for shape in self.shapes:
            used, fresh = (self.model(offer, settings, shape, seed) for seed in (1, 2))
            x = self.samples(shape)
            with torch.no_grad():
                used.train()(x)  # moves running statistics
                fresh.load_state_dict(used.state_dict())
                assert torch.equal(output(fresh.eval()(x)), output(used.eval()(x))), f"{shape}: logits differ"
