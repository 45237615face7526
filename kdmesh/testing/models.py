"""The contract of a model."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from kdmesh.hosts.modules import output
from kdmesh.offers import ModelOffer
from kdmesh.spec import DEFAULT_TASK
from kdmesh.streams.table import Table
from kdmesh.streams.tokens import Encoded, Row
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, close, here


class ModelContract(Alike):
    """Checks a model on samples of each of ``shapes`` (without the batch axis) and so many ``classes``.

    A model of texts is tried with samples of ``vocabulary`` kinds of token instead.
    """

    __test__ = False
    kind = "models"
    shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 8, 8),)
    classes: ClassVar[int] = 5
    vocabulary: ClassVar[int] = 60

    def made(self, offer: ModelOffer, settings: dict[str, Any]) -> nn.Module:
        """One for samples of the first shape, in train mode."""
        return self.model(offer, settings, self.shapes[0], None).train()

    def asked(self, offer: ModelOffer, thing: Any, number: int, at: At = here) -> Any:
        """What it answers in training, with the gradient, then in evaluation, and its state after that."""
        x = self.samples(offer, self.shapes[0])
        x = at((number + 1) * x) if isinstance(x, Tensor) else x
        thing.train().zero_grad()
        taught = output(thing(x))
        taught.square().mean().backward()
        with torch.no_grad():
            measured = output(thing.eval()(x))
        thing.train()
        gradients = {name: weight.grad for name, weight in thing.named_parameters() if weight.grad is not None}
        return taught, measured, gradients, dict(thing.state_dict())

    def model(
        self, offer: ModelOffer, settings: dict[str, Any], shape: tuple[int, ...], seed: int | None = 0
    ) -> nn.Module:
        """The model as an agent builds it, from a seed."""
        if seed is not None:
            torch.manual_seed(seed)
        more: dict[str, Any] = {"input_shape": torch.Size(shape)}
        if offer.encoder:
            facts = {"vocabulary": self.vocabulary, "pad": 0, "separator": None}
            more = {"task": DEFAULT_TASK, "labels": [f"class{n}" for n in range(self.classes)], **facts}
        made: nn.Module = offer.make(settings, classes=self.classes, **more)
        assert isinstance(made, nn.Module), f"the factory made a {type(made).__name__}"
        return made

    def small_mesh(self, offer: ModelOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """Two agents of it, one of which learns from the other."""
        own, connect = {offer.name: settings}, [{"ensemble": {"teachers": "a", "student": "b"}}]
        if offer.encoder:
            return small.mesh(("a", "b"), own, connect=connect), small.texts()
        shape = self.shapes[0]
        return small.mesh(("a", "b"), own, connect=connect), small.table(shape=shape)

    def samples(self, offer: ModelOffer, shape: tuple[int, ...], size: int = 6) -> Any:
        """A seeded batch: numbers, or texts of 3 to 5 tokens."""
        drawn = torch.Generator().manual_seed(4)
        if not offer.encoder:
            return torch.randn(size, *shape, generator=drawn)
        words = torch.randint(3, self.vocabulary, (size, 5), generator=drawn).tolist()
        rows = [Row(ids[: 3 + number % 3]) for number, ids in enumerate(words)]
        return Encoded.of(rows, pad=0).batch(torch.arange(size))

    def test_it_works_on_another_device(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """Of numbers: what it makes beside its samples is made where they are."""
        if offer.encoder:
            pytest.skip("a model of texts, whose tokens come with their device")
        super().test_it_works_on_another_device(offer, settings)

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
        """Every parameter takes part in the logits, once those that begin at 0 have moved, as of a norm may."""
        for shape in self.shapes:
            model, x = stirred(self.model(offer, settings, shape)).train(), self.samples(offer, shape, 16)
            nn.functional.cross_entropy(output(model(x)), torch.arange(len(x)) % self.classes).backward()
            idle = [
                name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
            ]
            assert not idle, f"{shape}: no gradient reaches {', '.join(idle)}"

    def test_gradient_is_right(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """Gradients of its weights agree with finite differences in float64: no part is cut off."""
        for shape in self.shapes:
            model, x = stirred(self.model(offer, settings, shape)).double().eval(), self.samples(offer, shape, 3)
            x = x.double() if isinstance(x, Tensor) else x
            names = [name for name, weight in model.named_parameters() if weight.requires_grad]
            leaves = tuple(dict(model.named_parameters())[name].detach().requires_grad_() for name in names)

            def call(*weights: Tensor, own: Any = model, x: Any = x, names: list[str] = names) -> Tensor:
                return output(torch.func.functional_call(own, dict(zip(names, weights, strict=True)), (x,)))

            assert torch.autograd.gradcheck(call, leaves, fast_mode=True), f"{shape}"

    def test_evaluation_moves_nothing(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """In eval mode its weights and buffers stay as they are, and another batch before changes nothing."""
        for shape in self.shapes:
            model, x = self.model(offer, settings, shape).eval(), self.samples(offer, shape)
            before = {name: value.clone() for name, value in model.state_dict().items()}
            with torch.no_grad():
                first = output(model(x))
                output(model(3 * x if isinstance(x, Tensor) else _part(x)))
                again = output(model(x))
            moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
            assert not moved, f"{shape}: in eval mode it moves {', '.join(moved)}"
            assert torch.equal(first, again), f"{shape}: it remembers the batch before"

    def test_precision(self, offer: ModelOffer, settings: dict[str, Any]) -> None:
        """In float64 it answers as in float32 but for rounding, and it computes in bfloat16 too."""
        for shape in self.shapes:
            x = self.samples(offer, shape)
            expected = output(self.model(offer, settings, shape).eval()(x)).detach()
            for dtype, error in ((torch.float64, 1e-4), (torch.bfloat16, 0.2)):
                model = self.model(offer, settings, shape).eval().to(dtype)
                try:
                    found = output(model(x.to(dtype) if isinstance(x, Tensor) else x)).detach()
                except RuntimeError as problem:
                    raise AssertionError(f"{shape}: in {dtype} it fails: {problem}") from None
                assert found.dtype == dtype, f"{shape}: in {dtype} it gives {found.dtype}"
                assert close(found.float(), expected, atol=error * (1 + float(expected.abs().max()))), f"{dtype}"

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


def stirred(model: nn.Module) -> nn.Module:
    """A model as after a step: each weight moved a little, so that none is 0 that begins so."""
    drawn = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=drawn))
    return model


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else torch.equal(one.ids, other.ids)


def _part(x: Any) -> Any:
    """The second sample and the third."""
    return x[1:3] if isinstance(x, Tensor) else x.encoded.batch(torch.arange(1, 3))
