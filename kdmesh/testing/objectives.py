"""The contract of an objective."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from kdmesh.hosts import guard
from kdmesh.offers import OF_TEXTS, ObjectiveOffer
from kdmesh.streams.table import Table
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here, worded

Compare = Callable[..., Tensor]
BATCH = 6
TEXTS = torch.tensor([0, 0, 1, 2, 3, 3])
"""Of which text each row is, where the offer asks: two answer a prompt each."""
REWARDS = torch.tensor([1.0, 0.25, 0.0, 1.0])
WRITTEN = torch.tensor([-1.5, -0.5, -2.0, -1.0, -3.0, -0.1])


class ObjectiveContract(Alike):
    """Checks a loss in each target form that its offer names.

    - ``zero_at_equality``: 0 where student and target agree, above 0 where they do not.
    - ``permutation_invariant``: the order of samples in a batch does not matter.
    - ``doubling``: what the loss is multiplied by when every sample stands in the batch twice: 1 for a mean over
      samples (the interface's reduction), 2 for a sum, None where it follows no such law.
    - ``target_gradient``: a target that wants a gradient gets one; False where it is detached on purpose.
    - ``shape``, ``target_shape``: of one sample's signal; by default 5 classes, or maps ``[4, 4, 4]`` of hidden layers.
    """

    __test__ = False
    kind = "objectives"
    zero_at_equality: ClassVar[bool] = False
    permutation_invariant: ClassVar[bool] = False
    doubling: ClassVar[float | None] = 1.0
    target_gradient: ClassVar[bool] = True
    shape: ClassVar[tuple[int, ...] | None] = None
    target_shape: ClassVar[tuple[int, ...] | None] = None

    @pytest.fixture
    def temperature(self, offer: ObjectiveOffer, settings: dict[str, Any]) -> float:
        """The temperature that a target in form `probs` is made with."""
        return float(getattr(offer.config.model_validate(settings), "temperature", 1.0)) if offer.tempered else 1.0

    @pytest.fixture
    def objective(self, offer: ObjectiveOffer, settings: dict[str, Any]) -> nn.Module:
        """The objective, built and set up for this contract's shapes and for a stream of one batch."""
        return self.build(offer, settings)

    def made(self, offer: ObjectiveOffer, settings: dict[str, Any]) -> nn.Module:
        """One, set up."""
        return self.build(offer, settings, None)

    def asked(self, offer: ObjectiveOffer, thing: Any, number: int, at: At = here) -> Any:
        """Losses and gradients of some steps in each form, and its state after them."""
        made = offer.config.model_fields.get("temperature")
        temperature = float(getattr(thing, "temperature", 2.0)) if made is not None and offer.tempered else 1.0
        found: list[Any] = []
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            rows = torch.arange(BATCH).roll(number)
            for weights in (None, torch.tensor([1, 0, 0.5, 1, 0, 2])):
                dtype = torch.float32 if number < 2 else torch.bfloat16
                leaf = at(((1 + number) * student[rows]).to(dtype)).requires_grad_()
                other = target[rows] if form == "labels" else target[rows].float()
                other = other.float() if other.is_floating_point() else other
                beside = {name: at(value) for name, value in self.beside(offer, rows).items()}
                loss = thing(leaf, at(other), form=form, weights=None if weights is None else at(weights), **beside)
                loss.backward()
                found.append((loss, leaf.grad))
        return found, {name: value for name, value in thing.state_dict().items() if isinstance(value, Tensor)}

    def build(self, offer: ObjectiveOffer, settings: dict[str, Any], seed: int | None = 0) -> nn.Module:
        """Make an objective as the engine does."""
        if seed is not None:
            torch.manual_seed(seed)
        made: nn.Module = offer.make(settings)
        student, target = self.shapes(offer)
        setup = getattr(made, "setup", None)
        if callable(setup):
            words: dict[str, Any] = {}
            if getattr(made, "asks_labels", False) and "labels" not in offer.needs:
                words["labels"] = self.labels(offer, torch.arange(BATCH))
            if "tokens" in offer.needs:
                words |= {"tokens": _words(student[0]), "source_tokens": _words(target[0])}
            setup(torch.Size(student), torch.Size(target), **self.beside(offer, torch.arange(BATCH)), **words)
        return made

    @pytest.fixture
    def loss(self, objective: nn.Module, offer: ObjectiveOffer) -> Compare:
        """``loss(student, target, form, weights=None, rows=None)``: on a copy and seeded, so each call is the first.

        ``rows``: which of the batch's samples these are, where they are not all of them in order.
        """

        def compute(
            student: Tensor, target: Tensor, form: str, weights: Tensor | None = None, rows: Tensor | None = None
        ) -> Tensor:
            torch.manual_seed(1)
            beside = self.beside(offer, torch.arange(BATCH) if rows is None else rows)
            fresh = copy.deepcopy(objective).to(student.dtype if student.dtype == torch.float64 else torch.float32)
            result: Tensor = fresh(student, target, form=form, weights=weights, **beside)
            try:
                guard.refuse_loss(result, student)
            except ValueError as error:
                raise AssertionError(f"form {form}: {error}") from None
            return result

        return compute

    def small_mesh(self, offer: ObjectiveOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """An agent that learns from labels, and one that learns from it, and from what else its forms are, by it."""
        form = "labels" if not {"logits", "hidden"} & {*offer.forms} else "logits"
        idle = [name for name, forms in offer.forms_of.items() if form not in forms]
        own = {name: value for name, value in settings.items() if name not in idle}
        objective: dict[str, Any] = {"objective": {offer.name: own}}
        labels = "indicators" if "marginals" in offer.forms else offer.labels[0]
        flows: list[dict[str, Any]] = [{"from": "labels", "to": "a", "objective": small.LABELS[labels]}]
        more: dict[str, Any] = {}
        if offer.reads == "hidden":
            objective["tap"] = "embedding" if labels == "relevance" else "layers.0"
            objective |= {} if offer.aligned else {"signal": "class_means"}
        if {"logits", "hidden"} & {*offer.forms}:
            flows.append({"from": "a", "to": "b", **objective})
        elif "labels" in offer.forms:
            flows.append({"from": "labels", "to": "b", **objective})
        if (space := next((form for form in ("probs", "marginals") if form in offer.forms), "")) and (
            "spans" not in offer.needs
        ):
            more["consensus"] = {"both": {"rule": "mean", "space": space}}
            flows[0]["to"] = ["a", "c"]
            flows += [{"from": ["a", "c"], "to": "both"}, {"from": "both", "to": "b", **objective}]
        agents = ("a", "b", "c") if more else ("a", "b")
        if {*OF_TEXTS} & {*self.needs(offer)}:
            return self._on_written(own, offer, flows[-1]), small.prompts()
        if "pairs" in offer.needs:
            for flow in flows[1:]:
                flow["stream"] = "pairs"
            more["streams"] = {"pairs": {"pairs": True}}
        if {"spans", "tokens", "pairs"} & {*offer.needs}:
            task = small.task(head="causal")
            return small.mesh(agents, small.model(head="causal"), task, flows=flows, **more), small.texts(
                classes=False, pairs="pairs" in offer.needs
            )
        maps = offer.reads == "hidden" and labels == "classes" and len(self.shapes(offer)[0]) == 3
        shape = (1, 8, 8) if maps else (6,)
        fields = small.mesh(agents, small.model(labels, shape), small.task(labels), flows=flows, **more)
        return fields, small.table(labels, shape)

    def _on_written(self, own: dict[str, Any], offer: ObjectiveOffer, flow: dict[str, Any]) -> dict[str, Any]:
        """An agent that writes four texts to each prompt, and learns from them by the offer, and one from labels."""
        sampling = {"max_new_tokens": 3, "samples": 4, "temperature": own.get("temperature", 1.0)}
        stream = {"generated_by": "b", "prompts": "train", "refresh": "2 steps", "sampling": sampling}
        flows = [{"from": "labels", "to": "a", "objective": "ce"}, {**flow, "stream": "texts"}]
        if flow["from"] != "labels":
            flows[1]["refresh"] = "step"
        more = {"streams": {"texts": {**stream, "reward": {"pattern": {"match": "[aeiou]"}}}}, "flows": flows}
        return small.mesh(("a", "b"), small.model(head="causal"), small.task(head="causal"), **more)

    def shapes(self, offer: ObjectiveOffer) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of student and target without the batch axis."""
        own = self.shape or ((5,) if offer.reads == "logits" or not offer.aligned else (4, 4, 4))
        return own, self.target_shape or own

    def beside(self, offer: ObjectiveOffer, rows: Tensor) -> dict[str, Tensor]:
        """What the objective is given beside the target for these samples: what its offer says it ``needs``.

        :meth:`setup` is given the same of the whole stream, which has the batch's samples and no more.
        """
        known = {"labels": self.labels(offer, rows), "ids": rows}
        known |= {
            "text": TEXTS[rows],
            "group": TEXTS[rows] // 2,
            "reward": REWARDS[TEXTS[rows]],
            "written": WRITTEN[rows],
        }
        given = {name: known[name] for name in self.needs(offer) if name in known}
        if "spans" in offer.needs:  # every sample one word, which student and target read as one token
            each = torch.arange(len(rows))
            spans = torch.stack([each, torch.zeros_like(each), torch.ones_like(each)], 1)
            given |= {"spans": spans, "source_spans": spans}
            given |= {"source_labels": known["labels"]} if "labels" in offer.needs else {}
        if "pairs" in offer.needs:  # every two samples one pair of answers, of a token each
            again = (rows[:, None] == rows).tril(-1).sum(1)
            given["pairs"] = torch.stack([rows // 2 + BATCH * again, rows % 2, rows % self.shapes(offer)[0][0]], 1)
        return given

    def needs(self, offer: ObjectiveOffer) -> tuple[str, ...]:
        """What the objective asks beside the target, with this contract's settings."""
        return offer.needed(self.config)

    def labels(self, offer: ObjectiveOffer, rows: Tensor) -> Tensor:
        """Labels of samples, of a kind that the offer reads: classes ``[B]``, or how relevant candidates are.

        For an objective that is not ``aligned`` the target has a row for each sample here, and that is its label.
        """
        if not offer.aligned:
            return torch.arange(len(rows))
        width = self.shapes(offer)[0][0]
        if "classes" in offer.labels:
            return rows % width
        candidates = torch.arange(width if offer.reads == "logits" else width - 1)  # hidden: of the query, too
        return ((rows[:, None] + candidates) % 4 - 1).double()

    def sides(self, offer: ObjectiveOffer, form: str, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """A seeded student ``[B, ...]`` in float64 and a target in a form."""
        made = torch.Generator().manual_seed(2)
        own, other = self.shapes(offer)
        student = torch.randn(BATCH, *own, generator=made, dtype=torch.float64)
        target = torch.randn(BATCH, *other, generator=made, dtype=torch.float64)
        if form == "labels" and "classes" in offer.labels:
            return student, torch.randint(own[0], (BATCH,), generator=made)
        if form == "labels" and "relevance" in offer.labels:
            return student, self.labels(offer, torch.arange(BATCH))
        if form == "labels" and "indicators" in offer.labels:
            return student, torch.randint(2, (BATCH, *own), generator=made)
        return student, self.formed(target, form, temperature)

    def formed(self, logits: Tensor, form: str, temperature: float) -> Tensor:
        """Logits as a target in a form."""
        if form == "probs":
            return (logits / temperature).softmax(-1)
        return (logits / temperature).sigmoid() if form == "marginals" else logits

    def test_loss_is_a_finite_scalar(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """In float32, and in float32 too where the student is bfloat16; also for signals fifty times as large."""
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            for scale in (1.0, 50.0):
                other = target * scale if form in ("logits", "hidden") else target
                other = other.float() if other.is_floating_point() else other
                for dtype in (torch.float32, torch.bfloat16):
                    value = loss((student * scale).to(dtype), other, form)
                    assert value.shape == (), f"form {form}: the loss has shape {tuple(value.shape)}"
                    assert value.dtype == torch.float32, f"form {form}: the loss of a {dtype} student is {value.dtype}"
                    assert value.isfinite(), f"form {form}: the loss is {value.item()} at scale {scale:g}"

    def test_same_call_gives_the_same_loss(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """With the same seed and the same state the bits are the same."""
        for form in offer.forms:
            sides = self.sides(offer, form, temperature)
            assert torch.equal(loss(*sides, form), loss(*sides, form)), f"form {form}: two calls differ"

    def test_state_reads_back(self, offer: ObjectiveOffer, settings: dict[str, Any], temperature: float) -> None:
        """An objective that has seen a batch, saved and loaded into one of another seed, goes on in the same way."""
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            used, fresh = (self.build(offer, settings, seed).double() for seed in (0, 1))
            beside = self.beside(offer, torch.arange(BATCH))
            used(student.requires_grad_(), target, form=form, **beside)
            fresh.load_state_dict(used.state_dict())
            for seed in range(2):
                with guard.seeded(seed):
                    one = used(student.roll(1, 0), target, form=form, **beside)
                with guard.seeded(seed):
                    two = fresh(student.roll(1, 0), target, form=form, **beside)
                assert torch.equal(one, two), f"form {form}: {two.item()} after loading, not {one.item()}"

    def test_gradient_reaches_the_student_only(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """The student gets a finite gradient, a detached target none; neither is changed in place."""
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            before = student.clone(), target.clone()
            student.requires_grad_()
            target = target if form == "labels" else target.requires_grad_()
            loss(student, target.detach(), form).backward()
            assert student.grad is not None and student.grad.isfinite().all(), f"form {form}: the gradient is broken"
            assert student.grad.any(), f"form {form}: no gradient reaches the student"
            assert target.grad is None, f"form {form}: a gradient reaches the target"
            assert torch.equal(student, before[0]) and torch.equal(target, before[1]), f"form {form}: inputs changed"

    def test_gradient_is_right(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """The student's gradient agrees with finite differences in float64, with weights too."""
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            leaf = student.requires_grad_()
            for weights in (None, torch.tensor([1, 0, 0.5, 1, 0, 2], dtype=torch.float64)):
                call = partial(loss, target=target, form=form, weights=weights)
                assert torch.autograd.gradcheck(call, (leaf,), fast_mode=True)

    def test_gradient_of_the_target_is_right(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """A target that wants a gradient (`detach: false`) gets the right one; it is not detached here."""
        for form in (one for one in offer.forms if one != "labels" and self.target_gradient):
            student, target = self.sides(offer, form, temperature)
            leaf = target.requires_grad_()
            call = partial(loss, student.requires_grad_(), form=form)
            assert call(leaf).requires_grad
            assert torch.autograd.gradcheck(call, (leaf,), fast_mode=True), f"form {form}"

    def test_gradient_of_its_weights_is_right(
        self, offer: ObjectiveOffer, objective: nn.Module, temperature: float
    ) -> None:
        """What it trains, such as an adapter, has gradients that agree with finite differences; none is left out."""
        names = [name for name, weight in objective.named_parameters() if weight.requires_grad]
        for form in offer.forms if names else ():
            student, target = self.sides(offer, form, temperature)
            beside = self.beside(offer, torch.arange(BATCH))
            double = copy.deepcopy(objective).double()
            leaves = tuple(dict(double.named_parameters())[name].detach().requires_grad_() for name in names)

            def call(*weights: Tensor, made: Any = double, f: str = form, s: Tensor = student, t: Tensor = target,
                     more: Any = beside) -> Any:  # fmt: skip
                with guard.seeded(1):
                    known = dict(zip(names, weights, strict=True))
                    return torch.func.functional_call(copy.deepcopy(made), known, (s, t), {"form": f, **more})

            found = torch.autograd.grad(call(*leaves), leaves, allow_unused=True)
            idle = [name for name, one in zip(names, found, strict=True) if one is None]
            assert not idle, f"form {form}: no gradient reaches {', '.join(idle)}"
            assert torch.autograd.gradcheck(call, leaves, fast_mode=True), f"form {form}"

    def test_steps_follow_each_other(self, offer: ObjectiveOffer, settings: dict[str, Any], temperature: float) -> None:
        """Nothing keeps a step's graph: each of several goes backward, also where the target has a gradient."""
        for form in offer.forms:
            made = self.build(offer, settings)
            for step in range(3):
                student, target = (side.roll(step, 0) for side in self.sides(offer, form, temperature))
                leaf = student.float().requires_grad_()
                other = target if form == "labels" else target.float().requires_grad_()
                loss = made(leaf, other, form=form, **self.beside(offer, torch.arange(BATCH)))
                try:
                    loss.backward()
                except RuntimeError as error:
                    raise AssertionError(f"form {form}: step {step} goes back into the one before: {error}") from None
                kept = [name for name, one in made.named_buffers() if one.requires_grad]
                assert not kept, f"form {form}: {', '.join(kept)} keeps the graph of the step"

    def test_zero_at_equality(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """Where declared: no loss between equals, some loss between others."""
        if not self.zero_at_equality:
            pytest.skip("`zero_at_equality` is not declared")
        for form in offer.forms:
            if form == "labels":
                continue
            student, target = self.sides(offer, form, temperature)
            same = self.formed(student, form, temperature).clone()
            value, other = loss(student, same, form).item(), loss(student, target, form).item()
            assert abs(value) < 1e-9, f"form {form}: the loss between equals is {value}"
            assert other > 1e-9, f"form {form}: the loss between others is {other}"

    def test_masked_samples_do_not_matter(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """Samples of weight 0 add neither loss nor gradient, even if they are NaN."""
        weights = torch.tensor([1, 0, 0.5, 1, 0, 2], dtype=torch.float64)
        silent = weights == 0
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            broken = target.clone()
            broken[silent] = -100 if form == "labels" else torch.nan
            leaf = torch.where(silent.view(-1, *[1] * (student.dim() - 1)), torch.nan, student).requires_grad_()
            expected, value = loss(student, target, form, weights), loss(leaf, broken, form, weights)
            torch.testing.assert_close(value, expected, msg=f"form {form}: {value.item()}, not {expected.item()}")
            value.backward()
            assert leaf.grad is not None and leaf.grad.isfinite().all(), f"form {form}: a NaN reaches the gradient"
            assert not leaf.grad[silent].any(), f"form {form}: a masked sample has a gradient"

    def test_equal_weights_are_no_weights(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """Weights of 1 give the loss without weights."""
        for form in offer.forms:
            sides = self.sides(offer, form, temperature)
            ones = torch.ones(BATCH, dtype=torch.float64)
            torch.testing.assert_close(loss(*sides, form, ones), loss(*sides, form))

    def test_weights_are_factors(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """The loss is ``sum_i w_i l_i / B``: neither over the sum of weights, nor over how many samples have one.

        Where it is the mean of what it is for each sample alone, it is linear in the weights. Where samples are related
        to each other it must change as weights do, and not be that of the remaining samples alone.
        """
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            call, plain = partial(loss, student, target, form), loss(student, target, form).item()
            half = call(torch.full((BATCH,), 0.5, dtype=torch.float64)).item()
            unmoved = plain != 0 and abs(half - plain) <= 1e-9 * abs(plain)
            assert not unmoved, f"form {form}: half the weights give the same loss: divided by the sum of weights?"
            mask = torch.tensor([1, 0, 0, 1, 1, 0], dtype=torch.float64)
            rows = mask.nonzero()[:, 0]
            masked, alone = call(mask).item(), loss(student[rows], target[rows], form, rows=rows).item()
            alike = alone != 0 and abs(masked - alone) <= 1e-9 * abs(alone)
            assert self.doubling == 2 or not alike, f"form {form}: divided by how many samples have a weight"
            single = [loss(student[[n]], target[[n]], form, rows=torch.tensor([n])).item() for n in range(BATCH)]
            if abs(sum(single) / BATCH - plain) > 1e-6 * abs(plain):
                continue  # samples are related to each other
            each = torch.stack([call(one) for one in torch.eye(BATCH, dtype=torch.float64)])
            for weights in (mask, torch.tensor([0.5, 2, 0, 1, 0.25, 3], dtype=torch.float64)):
                torch.testing.assert_close(call(weights), (each * weights).sum(), rtol=1e-6, atol=1e-9)

    def test_half_precision_is_computed_in_float32(
        self, offer: ObjectiveOffer, loss: Compare, temperature: float
    ) -> None:
        """A student or target of half precision gives the loss of the same numbers in float32, but for rounding."""
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            for dtype in (torch.bfloat16, torch.float16):
                own, other = student.to(dtype), target.to(dtype) if target.is_floating_point() else target
                whole = other.float() if other.is_floating_point() else other
                expected = loss(own.float(), whole, form)
                for one, two in ((own, whole), (own.float(), other), (own, other)):
                    torch.testing.assert_close(
                        loss(one, two, form), expected, rtol=1e-4, atol=1e-5,
                        msg=worded(f"form {form}, {dtype}: computed in half precision?"),
                    )  # fmt: skip

    def test_forms_agree(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """Logits and what their distribution is at the objective's temperature are one target, and T is declared."""
        form = next((one for one in ("probs", "marginals") if one in offer.forms), "")
        if not form:
            return
        declared = offer.tempered or "temperature" not in offer.config.model_fields
        assert declared, f"it has a temperature and reads {form}, and its offer does not say tempered=True"
        if "logits" in offer.forms:
            student, target = self.sides(offer, "logits", temperature)
            given = self.formed(target, form, temperature)
            torch.testing.assert_close(loss(student, given, form), loss(student, target, "logits"))

    def test_uses_what_it_declares(self, offer: ObjectiveOffer, objective: nn.Module, temperature: float) -> None:
        """What its offer does not ask for is never given, so it must change nothing where someone gives it."""
        known = {"labels": torch.arange(BATCH) % 2, "ids": torch.arange(BATCH), "step": 7, "epoch": 3, "round": 2}
        taken = inspect.signature(objective.forward).parameters
        every = any(one.kind is one.VAR_KEYWORD for one in taken.values())
        beside = self.beside(offer, torch.arange(BATCH))
        for form in offer.forms:
            sides = self.sides(offer, form, temperature)
            for name, value in known.items():
                if name not in offer.needs and (every or name in taken):
                    both = []
                    for more in ({}, {name: value}):
                        with guard.seeded(1):
                            both.append(copy.deepcopy(objective).double()(*sides, form=form, **beside, **more))
                    assert torch.equal(*both), f"form {form}: it uses {name}, and its offer does not ask for it"

    def test_permutation_invariant(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """Where declared: the same samples in another order give the same loss."""
        if not self.permutation_invariant:
            pytest.skip("`permutation_invariant` is not declared")
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            moved = loss(student[order], target[order], form, rows=order)
            torch.testing.assert_close(moved, loss(student, target, form))

    def test_doubling_the_batch(self, offer: ObjectiveOffer, loss: Compare, temperature: float) -> None:
        """Each sample twice multiplies the loss by ``doubling``."""
        if self.doubling is None:
            pytest.skip("`doubling` is None")
        for form in offer.forms:
            student, target = self.sides(offer, form, temperature)
            rows = torch.arange(BATCH).repeat(2)
            twice = loss(student[rows], target[rows], form, rows=rows)
            torch.testing.assert_close(twice, loss(student, target, form) * self.doubling)


def _words(count: int) -> list[str]:
    """A vocabulary."""
    return [f"word{number}" for number in range(count)]
