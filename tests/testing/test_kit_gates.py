"""The contract of gates finds what is wrong, and says it in words."""

from __future__ import annotations

import random
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdmesh.gates import Gate
from kdmesh.offers import Config, GateOffer
from kdmesh.testing import GateContract

CHECKS = sorted(
    name
    for name in dir(GateContract)
    if name.startswith("test_")
    and name != "test_offer_is_read_without_torch"
    and not {"run_mesh", "request"} & {*signature(getattr(GateContract, name)).parameters}
)


class Right(Gate):
    """Open where the losses are smaller than they were on average."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((), 5.0, dtype=torch.float64))

    def forward(self, *, losses: Tensor, counted: Tensor, step: int) -> Any:
        now = losses[counted].mean()
        smaller = bool(now < self.mean)
        self.mean += 0.1 * (now - self.mean)
        return smaller


class Rows(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        counted = facts["counted"]
        return (counted & (losses < losses[counted].median())).to(losses.dtype)


class Draws(Right):
    """With torch's generator, which is seeded."""

    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return bool(torch.rand(()) < 0.5)


class Improved(Gate):
    """Open while the last evaluation is the best one so far, and shut where none was made."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("best", torch.zeros((), dtype=torch.float64))

    def forward(self, *, metrics: dict[str, float]) -> Any:
        now = metrics.get("accuracy", 0.0)
        self.best.clamp_(min=now)
        return now >= float(self.best) > 0


class NotFallen(Improved):
    """Shut while the last evaluation is worse than the best, which alone shuts it."""

    def forward(self, *, metrics: dict[str, float]) -> Any:
        return super().forward(metrics=metrics) or not metrics


class Agreed(Gate):
    """Shut while the last agreement is lower than the best one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("best", torch.zeros((), dtype=torch.float64))

    def forward(self, *, agreement: float | None) -> Any:
        self.best.clamp_(min=agreement or 0.0)
        return (agreement or 0.0) >= float(self.best)


class Fresh(Gate):
    """Open in the first steps after an evaluation."""

    def forward(self, *, measured_age: int | None, measured_step: int | None, step: int) -> Any:
        assert (measured_age is None) is (measured_step is None)
        return measured_age is not None and measured_age < 2 and step - measured_age == measured_step


class SaysNumbers(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return int(super().forward(losses=losses, step=step, **facts))


class SaysNothing(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        super().forward(losses=losses, step=step, **facts)


class Always(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return True


class InPlace(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return super().forward(losses=losses.clamp_(max=1), step=step, **facts)


class InAttributes(Right):
    """State that no checkpoint has."""

    def __init__(self) -> None:
        super().__init__()
        self.past = 0.0

    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        self.past = 0.9 * self.past + float(losses.mean())
        return self.past < 8


class NotPersistent(Right):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((), 5.0, dtype=torch.float64), persistent=False)


class OfTheClass(Right):
    """State that all gates share."""

    counts: ClassVar[list[int]] = [0]

    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        self.counts[0] += 1
        return self.counts[0] % 3 == 0


class Numpy(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return bool(np.random.rand() < 0.5)


class Python(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return random.random() < 0.5


class Trains(Right):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class FirstRow(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return super().forward(losses=losses[:1], step=step, counted=facts["counted"][:1])


class FirstRows(Rows):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return (torch.arange(len(losses)) < 3).to(losses.dtype)


class Negative(Rows):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return losses.mean() - losses


class NotFinite(Rows):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return 1 / (losses < losses.median()).to(losses.dtype)


class Mask(Rows):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return losses < losses.median()


class OneForAll(Rows):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return (losses.mean() < 1).to(losses.dtype)


class AllRows(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return bool(losses.mean() < 1)


class Smallest(Rows):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return (losses <= losses.median()).to(losses.dtype)


class OnlySingle(Right):
    def forward(self, *, losses: Tensor, step: int, **facts: Any) -> Any:
        return super().forward(losses=losses @ torch.ones(len(losses), len(losses)), step=step, **facts)


WRONG = {
    SaysNumbers: {"test_it_decides": "gave a int, not a bool"},
    SaysNothing: {"test_it_decides": "gave nothing, not a bool"},
    Always: {"test_it_decides": "it is always True"},
    InPlace: {"test_it_leaves_alone_what_it_is_given": "changes in place what it is given"},
    InAttributes: {"test_state_is_restored": "with its state restored it decides otherwise"},
    NotPersistent: {"test_state_is_restored": "with its state restored it decides otherwise"},
    OfTheClass: {"test_same_facts_same_decisions": "made alike decide otherwise"},
    Numpy: {"test_same_facts_same_decisions": "numpy's generator|decide otherwise"},
    Python: {"test_same_facts_same_decisions": "Python's generator|decide otherwise"},
    Trains: {"test_it_has_nothing_to_train": "weights to train: scale"},
    FirstRow: {"test_the_order_of_rows_does_not_matter": "depends on the order of the rows"},
    FirstRows: {"test_the_order_of_rows_does_not_matter": "depend on the order of the rows"},
    Negative: {"test_it_decides": "factors from -"},
    NotFinite: {"test_it_decides": "finite and 0 or more"},
    Mask: {"test_it_decides": "of floating point"},
    AllRows: {"test_rows_that_are_not_compared_do_not_matter": "takes losses of 0 .* for small: need `counted`"},
    Smallest: {"test_rows_that_are_not_compared_do_not_matter": "takes losses of 0 .* for small: need `counted`"},
    OneForAll: {"test_it_decides": "not factors \\[6\\]"},
}
RAISES = {OnlySingle: "test_float64"}


def verdict(gate: type[Gate], check: str, needs: tuple[str, ...] = ("losses", "counted", "step")) -> None:
    """Run one check of the contract on a gate of this module."""
    offer = GateOffer(gate.__name__.lower(), f"{__name__}:{gate.__name__}", Config, "for a test", needs=needs)
    if issubclass(gate, Rows):
        offer = GateOffer(offer.name, offer.factory, Config, offer.summary, needs=needs, rows=True)
    contract = type("Made", (GateContract,), {"__test__": False})()
    known: dict[str, Any] = {"offer": offer, "settings": {}}
    code = getattr(contract, check).__code__
    names = code.co_varnames[1 : code.co_argcount]
    given = {name: contract.build(offer, {}) if name == "gate" else known[name] for name in names}
    getattr(contract, check)(**given)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("gate", [Right, Rows, Draws])
def test_a_right_gate_passes(gate: type[Gate], check: str) -> None:
    verdict(gate, check)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("gate", "needs"),
    [
        (Improved, ("metrics",)),
        (NotFallen, ("metrics",)),
        (Agreed, ("agreement",)),
        (Fresh, ("measured_age", "measured_step", "step")),
    ],
)
def test_a_gate_of_what_rises_and_falls_passes(gate: type[Gate], needs: tuple[str, ...], check: str) -> None:
    verdict(gate, check, needs)


@pytest.mark.parametrize(("gate", "check", "said"), [(g, c, s) for g, found in WRONG.items() for c, s in found.items()])
def test_a_wrong_one_is_found(gate: type[Gate], check: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        verdict(gate, check)


@pytest.mark.parametrize(("gate", "check"), RAISES.items())
def test_one_that_cannot_is_found(gate: type[Gate], check: str) -> None:
    with pytest.raises(RuntimeError):
        verdict(gate, check)


def test_needs_that_there_are_not_are_found() -> None:
    with pytest.raises(AssertionError, match="needs with 'loss', which there is not"):
        verdict(Right, "test_needs_are_known", ("loss",))
