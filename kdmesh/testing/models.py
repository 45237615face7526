"""The contract of a model."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdmesh.hosts.modules import output
from kdmesh.offers import ModelOffer
from kdmesh.spec import DEFAULT_TASK
from kdmesh.streams.tokens import Encoded, Row
from kdmesh.testing.base import Contract


class ModelContract(Contract):
    """Checks a model on samples of each of ``shapes`` (without the batch axis) and so many ``classes``.

    A model of texts is tried with samples of ``vocabulary`` kinds of token instead.
    """

    __test__ = False
    kind = "models"
    shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 8, 8),)
    classes: ClassVar[int] = 5
    vocabulary: ClassVar[int] = 60

    def model(self, offer: ModelOffer, settings: dict[str, Any], shape: tuple[int, ...], seed: int = 0) -> nn.Module:
        """The model as an agent builds it, from a seed."""
        torch.manual_seed(seed)
        more: dict[str, Any] = {"input_shape": torch.Size(shape)}
        if offer.encoder:
            facts = {"vocabulary": self.vocabulary, "pad": 0, "separator": None}
            more = {"task": DEFAULT_TASK, "labels": [f"class{n}" for n in range(self.classes)], **facts}
        made: nn.Module = offer.make(settings, classes=self.classes, **more)
        assert isinstance(made, nn.Module), f"the factory made a {type(made).__name__}"
        return made

    def samples(self, offer: ModelOffer, shape: tuple[int, ...], size: int = 6) -> Any:
        """A seeded batch: numbers, or texts of 3 to 5 tokens."""
        drawn = torch.Generator().manual_seed(4)
        if not offer.encoder:
            return torch.randn(size, *shape, generator=drawn)
        words = torch.randint(3, self.vocabulary, (size, 5), generator=drawn).tolist()
        rows = [Row(ids[: 3 + number % 3]) for number, ids in enumerate(words)]
        return Encoded.of(rows, pad=0).batch(torch.arange(size))

    def test_gives_one_logit_per_class(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """Finite logits ``[B, classes]`` in training and evaluation; the samples are not changed."""
        for shape in self.shapes:
            model = self.model(offer, settings, shape)
            for mode in (True, False):
                x = self.samples(offer, shape)
                logits = output(model.train(mode)(x))
                assert logits.shape == (len(x), self.classes), f"{shape}: logits of shape {tuple(logits.shape)}"
                assert logits.isfinite().all(), f"{shape}: logits are not finite"
                assert _same(x, self.samples(offer, shape)), f"{shape}: the samples were changed in place"

    def test_builds_on_meta(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """`kdmesh check` builds and runs the model without memory."""
        for shape in self.shapes:
            two = self.samples(offer, shape, 2).to(torch.device("meta"))
            with torch.device("meta"):
                model = self.model(offer, settings, shape).eval()
                logits = output(model(two))
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
            model, x = self.model(offer, settings, shape).train(), self.samples(offer, shape, 16)
            nn.functional.cross_entropy(output(model(x)), torch.arange(len(x)) % self.classes).backward()
            idle = [
                name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
            ]
            assert not idle, f"{shape}: no gradient reaches {', '.join(idle)}"

    def test_evaluation_is_a_function_of_the_sample(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """In eval mode nothing is drawn, and the other samples of a batch do not matter."""
        for shape in self.shapes:
            model, x = self.model(offer, settings, shape).eval(), self.samples(offer, shape)
            with torch.no_grad():
                whole, again, part = output(model(x)), output(model(x)), output(model(_part(x)))
            assert torch.equal(whole, again), f"{shape}: two evaluations differ"
            torch.testing.assert_close(part, whole[1:3], atol=1e-5, rtol=1e-4)

    def test_state_reads_back(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """A trained model's state, loaded into a new one, gives the same logits."""
        for shape in self.shapes:
            used, fresh = (self.model(offer, settings, shape, seed) for seed in (1, 2))
            x = self.samples(offer, shape)
            with torch.no_grad():
                used.train()(x)  # moves running statistics
                fresh.load_state_dict(used.state_dict())
                assert torch.equal(output(fresh.eval()(x)), output(used.eval()(x))), f"{shape}: logits differ"


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else torch.equal(one.ids, other.ids)


def _part(x: Any) -> Any:
    """The second sample and the third."""
    return x[1:3] if isinstance(x, Tensor) else x.encoded.batch(torch.arange(1, 3))
