"""The contract of a gate."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from kdmesh.hosts import guard
from kdmesh.offers import GateOffer
from kdmesh.plugins import fault
from kdmesh.streams.table import Table
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here
from kdmesh.testing.base import refuse_other_draws

BATCH, CLASSES = 6, 5
Decision = bool | Tensor


class GateContract(Alike):
    """Checks what a gate says of made-up steps, to which it is given what its offer ``needs``, and nothing else.

    - ``decides``: over the ``steps`` of a made-up training it is to be shut in some and open in others; of one that
      gives factors, some rows are to be left out and some kept. False where settings or data like these cannot tell.
    - ``steps``: how many there are, of ``per_epoch`` in an epoch, and two epochs in a round.
    - ``outputs``: the shape of an agent's logits without the batch axis.
    """

    __test__ = False
    kind = "gates"
    decides: ClassVar[bool] = True
    steps: ClassVar[int] = 60
    per_epoch: ClassVar[int] = 4
    outputs: ClassVar[tuple[int, ...]] = (CLASSES,)

    @pytest.fixture
    def gate(self, offer: GateOffer, settings: dict[str, Any]) -> nn.Module:
        """The gate, built and set up."""
        return self.build(offer, settings)

    def build(self, offer: GateOffer, settings: dict[str, Any]) -> nn.Module:
        """Make a gate as the engine does."""
        torch.manual_seed(0)
        return self.made(offer, settings)

    def made(self, offer: GateOffer, settings: dict[str, Any]) -> nn.Module:
        """One, set up."""
        made: nn.Module = offer.make(settings)
        made.setup(torch.Size(self.outputs))  # type: ignore[operator]  # a method, of a module
        return made

    def small_mesh(self, offer: GateOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """An agent, and one that learns from it where the gate is open."""
        gate = {**settings, **({"of": "a"} if "other" in offer.needs else {})}
        kind = "classes" if "classes" in offer.answers else offer.answers[0]
        flow = {"from": "a", "to": "b", "objective": "kl" if kind == "classes" else "mse", "gate": {offer.name: gate}}
        fields = small.mesh(("a", "b"), small.model(kind), small.task(kind), flows=[flow])
        fields["train"]["evaluate_every"] = 1
        if {"round", "agreement"} & {*offer.needs}:
            del fields["flows"]
            fields["connect"] = [{"rounds": {"students": ["a", "b"], "rounds": 2}}]
            fields["agents"]["b"] = {**fields["agents"]["b"], "gate": {offer.name: gate}}
        return fields, small.table(kind)

    def asked(self, offer: GateOffer, thing: Any, number: int, at: At = here) -> Any:
        """What it decides in some steps, and its state after them."""
        found: list[Any] = []
        with torch.no_grad():
            for step in range(8 * number, 8 * number + 12):
                facts = self.facts(offer, step)
                answer = thing(
                    **{name: at(value) if isinstance(value, Tensor) else value for name, value in facts.items()}
                )
                found.append(answer if offer.rows else guard.refuse_decision(answer))
        return found, dict(thing.state_dict())

    def facts(self, offer: GateOffer, step: int) -> dict[str, Any]:
        """What the gate is told in a step: signals that grow, from an agent that knows more and one that knows less."""
        known = self.every_fact(step)
        return {name: known[name] for name in offer.needs}

    def every_fact(self, step: int) -> dict[str, Any]:
        """What there is to be told of a step; figures are measured after each epoch, agreement after each round."""
        made = torch.Generator().manual_seed(step)
        labels = torch.randint(self.outputs[0], (BATCH,), generator=made)
        truth = nn.functional.one_hot(labels, self.outputs[0]).float()
        epoch, grown = step // self.per_epoch, step / self.steps
        level = self.level(epoch)
        noise = [2 * torch.randn(BATCH, *self.outputs, generator=made) for _ in range(3)]
        own, other, signal = (k * grown * truth + part for k, part in zip((8, 4, 12), noise, strict=True))
        loose = 3 * torch.rand(BATCH, generator=made) if step % 2 else torch.rand(BATCH, generator=made)
        return {
            "own": own, "other": other, "signal": signal, "confidence": signal.softmax(-1).amax(-1),
            "losses": loose, "counted": torch.ones(BATCH, dtype=torch.bool), "labels": labels,
            "ids": torch.arange(BATCH) + BATCH * (step % self.per_epoch),
            "step": step, "epoch": epoch, "round": epoch // 2 + 1,
            "metrics": {} if not epoch else {"accuracy": level, "loss": 2 - level, "ece": 0.1 + 0.05 * (epoch % 2)},
            "measured_step": epoch * self.per_epoch if epoch else None, "measured_epoch": epoch or None,
            "measured_age": step % self.per_epoch if epoch else None,
            "agreement": None if epoch < 2 else self.level(epoch // 2),
        }  # fmt: skip

    def level(self, number: int) -> float:
        """A figure that was measured for the ``number``th time: it rises, falls, and comes back to where it was."""
        return 0.99 * min(1.0, (number + 2 * (number % 3 == 1)) * self.per_epoch / self.steps)

    def says(self, offer: GateOffer, gate: nn.Module, step: int, facts: dict[str, Any] | None = None) -> Decision:
        """What it decides in a step, seeded as the engine seeds it, and checked."""
        torch.manual_seed(step)
        with torch.no_grad():
            answer = gate(**(self.facts(offer, step) if facts is None else facts))
        rows = BATCH if facts is None else next((len(v) for v in facts.values() if isinstance(v, Tensor)), BATCH)
        try:
            return guard.refuse_factors(answer, rows) if offer.rows else guard.refuse_decision(answer)
        except ValueError as error:
            raise AssertionError(f"step {step}: {error}") from None

    def course(self, offer: GateOffer, gate: nn.Module, first: int = 0) -> Iterator[Decision]:
        """What it decides in each step."""
        for step in range(first, self.steps):
            yield self.says(offer, gate, step)

    def test_needs_are_known(self, offer: GateOffer) -> None:
        """It asks for facts that there are."""
        assert not fault("gates", offer), fault("gates", offer)

    def test_it_decides(self, offer: GateOffer, gate: nn.Module) -> None:
        """Every answer is a decision, and over a training it is not always the same one."""
        found = list(self.course(offer, gate))
        if self.decides and offer.rows:
            rows = torch.cat([answer for answer in found if isinstance(answer, Tensor)])
            assert bool((rows == 0).any()), "no row is ever left out: declare `decides = False` if that is meant"
            assert bool((rows > 0).any()), "no row is ever kept: declare `decides = False` if that is meant"
        elif self.decides:
            assert set(found) == {True, False}, f"it is always {found[0]}: declare `decides = False` if that is meant"

    def test_uses_what_it_declares(self, offer: GateOffer, settings: dict[str, Any]) -> None:
        """Facts that its offer does not ask for are never given, so they change nothing where someone gives them."""
        one, other = self.build(offer, settings), self.build(offer, settings)
        taken = inspect.signature(one.forward).parameters
        every = any(about.kind is about.VAR_KEYWORD for about in taken.values())
        for step in range(self.steps):
            told = {
                name: fact
                for name, fact in self.every_fact(step).items()
                if name in offer.needs or every or name in taken
            }
            decided = self.says(offer, one, step), self.says(offer, other, step, told)
            assert _same(*decided), f"step {step}: facts that its offer does not ask for change what it decides"

    def test_same_facts_same_decisions(self, offer: GateOffer, settings: dict[str, Any]) -> None:
        """Two that are made alike decide alike: nothing but the facts, its state and torch's generator matters."""
        with refuse_other_draws("a gate"):
            both = [self.build(offer, settings) for _ in range(2)]
            for step in range(self.steps):
                one, other = (self.says(offer, gate, step) for gate in both)  # in turn: what they share shows
                assert _same(one, other), f"step {step}: two gates that are made alike decide otherwise"

    def test_state_is_restored(self, offer: GateOffer, settings: dict[str, Any]) -> None:
        """A fresh one with the state of another goes on as that: all that it remembers is in its buffers."""
        first = self.build(offer, settings)
        half = self.steps // 2
        for step in range(half):
            self.says(offer, first, step)
        state = copy.deepcopy(first.state_dict())
        kept = all(isinstance(value, Tensor) for value in state.values())
        assert kept, "its state_dict holds tensors: checkpoints keep nothing else"
        again = self.build(offer, settings)
        again.load_state_dict(state)
        for number, (one, other) in enumerate(
            zip(self.course(offer, first, half), self.course(offer, again, half), strict=True), half
        ):
            assert _same(one, other), f"step {number}: with its state restored it decides otherwise"
        for name, value in first.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), f"with its state restored {name} goes on otherwise"

    def test_it_has_nothing_to_train(self, gate: nn.Module) -> None:
        """No gradient reaches a gate."""
        trained = [name for name, parameter in gate.named_parameters() if parameter.requires_grad]
        assert not trained, f"it has weights to train: {', '.join(trained)}; state that moves is a buffer"

    def test_the_order_of_rows_does_not_matter(self, offer: GateOffer, gate: nn.Module) -> None:
        """Where samples stand in a batch tells nothing about them: factors follow their rows, unless `drawn`."""
        if self.drawn:
            pytest.skip("`drawn` is declared")
        order = torch.arange(BATCH - 1, -1, -1)
        for step in range(self.steps):
            facts, twin = self.facts(offer, step), copy.deepcopy(gate)
            turned = {name: value[order] if isinstance(value, Tensor) else value for name, value in facts.items()}
            one, other = self.says(offer, gate, step, facts), self.says(offer, twin, step, turned)
            if isinstance(one, Tensor) and isinstance(other, Tensor):
                assert torch.equal(one[order], other), f"step {step}: factors depend on the order of the rows"
            else:
                assert one == other, f"step {step}: it depends on the order of the rows"

    def test_rows_that_are_not_compared_do_not_matter(self, offer: GateOffer, gate: nn.Module) -> None:
        """Of such rows the losses are 0, which is not small: it decides by the others (``counted``) alone."""
        for step in range(self.steps if "losses" in offer.needs else 0):
            facts, twin = self.facts(offer, step), copy.deepcopy(gate)
            more = {name: torch.cat([v, v]) if isinstance(v, Tensor) else v for name, v in facts.items()}
            for name in more.keys() & {"losses", "counted"}:  # each row once more, which is not compared
                more[name][BATCH:] = 0
            one, other = self.says(offer, gate, step, facts), self.says(offer, twin, step, more)
            if isinstance(one, Tensor) and isinstance(other, Tensor):
                one, other = one > 0, other[:BATCH] > 0
            assert _same(one, other), (
                f"step {step}: it takes losses of 0 of rows that are not compared for small: need `counted`"
            )

    def test_float64(self, offer: GateOffer, settings: dict[str, Any]) -> None:
        """Facts of float64 and bfloat16 are decided about as those of float32 with the same values."""
        gates = [self.build(offer, settings) for _ in range(3)]
        for step in range(self.steps):
            decided = []
            for gate, dtype in zip(gates, (torch.float32, torch.float64, torch.bfloat16), strict=True):
                facts = {
                    name: value.bfloat16().to(dtype)
                    if isinstance(value, Tensor) and value.is_floating_point()
                    else value
                    for name, value in self.facts(offer, step).items()
                }
                answer = self.says(offer, gate, step, facts)
                decided.append(answer.float() if isinstance(answer, Tensor) else answer)
            if not self.drawn:
                assert _near(decided[0], decided[1]), f"step {step}: facts of float64 are decided about otherwise"


def _same(one: Decision, other: Decision) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one is other


def _near(one: Decision, other: Decision) -> bool:
    return torch.allclose(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else one is other
