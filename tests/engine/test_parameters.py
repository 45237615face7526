"""What an offer needs and what its code takes, where these differ: said by name before anything is called."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdmesh.consensus import Rule
from kdmesh.errors import MeshError, RunFailed
from kdmesh.gates import Gate
from kdmesh.objectives import Objective
from kdmesh.offers import ConsensusOffer, GateOffer, ObjectiveOffer, Offer, SignalOffer
from kdmesh.plugins import PluginRecord, registry


class Plain(Objective):
    def forward(self, student: Tensor, target: Tensor, *, form: str = "logits", weights: Any = None) -> Tensor:
        return (student - target).square().mean()


class AsksEpoch(Plain):
    def forward(self, student: Tensor, target: Tensor, *, form: str, weights: Any, epoch: int) -> Tensor:  # type: ignore[override]
        return (student - target).square().mean()


class Formless(Plain):
    def forward(self, student: Tensor, target: Tensor, *, weights: Any = None) -> Tensor:  # type: ignore[override]
        return (student - target).square().mean()


class Alone(Plain):
    def forward(self, student: Tensor, *, form: str = "", weights: Any = None) -> Tensor:  # type: ignore[override]
        return student.square().mean()


class SetUpAlone(Plain):
    def setup(self, student: torch.Size, target: torch.Size) -> None:  # type: ignore[override]
        self.shape = student

    def forward(  # type: ignore[override]
        self, student: Tensor, target: Tensor, *, form: str = "", weights: Any = None, ids: Any = None
    ) -> Tensor:
        return (student - target).square().mean()


class Mean(Rule):
    def forward(self, values: Tensor, *, logits: Tensor, labels: Any = None, present: Any = None) -> Tensor:
        return values.mean(0)


class AsksLabels(Mean):
    def forward(self, values: Tensor, *, logits: Tensor, labels: Tensor, present: Any = None) -> Tensor:  # type: ignore[override]
        return values.mean(0)


class AsksRound(Mean):
    def weights(self, logits: Tensor, *, labels: Any = None, present: Any = None, round: int) -> Tensor:  # type: ignore[override]
        return torch.full(logits.shape[:2], 1 / len(logits))


class Open(Gate):
    def forward(self, *, signal: Tensor) -> bool:
        return True


def soft(value: Tensor, *, x: Tensor) -> Tensor:
    return value.softmax(-1)


class SoftModule(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return value.softmax(-1)


def softness() -> Any:
    return soft


def added(forward: Any) -> Any:
    """Gives an epoch itself."""

    @wraps(forward)
    def call(*args: Any, **more: Any) -> Any:
        return forward(*args, epoch=0, **more)

    return call


class Decorated(AsksEpoch):
    forward = added(AsksEpoch.forward)


def named(name: str) -> str:
    return f"{__name__}:{name}"


CASES: dict[str, tuple[Offer, str, str]] = {
    "objective, a need": (
        ObjectiveOffer("odd", named("Plain"), needs=("ids",)),
        r"the forward of the objective 'odd' of kdmesh-odd 2 takes no `ids`, which its offer needs",
        "a parameter `ids`, or an offer that does not need it",
    ),
    "objective, a parameter": (
        ObjectiveOffer("odd", named("AsksEpoch"), needs=("step",)),
        r"takes no `step`, which its offer needs",
        "a parameter `step`",
    ),
    "objective, not declared": (
        ObjectiveOffer("odd", named("AsksEpoch")),
        r"the forward of the objective 'odd' of kdmesh-odd 2 asks for `epoch`, which it is not given",
        r"needs=('epoch',) in its offer, or a default for it",
    ),
    "objective, always given": (ObjectiveOffer("odd", named("Formless")), r"takes no `form`", "a parameter `form`"),
    "objective, places": (
        ObjectiveOffer("odd", named("Alone")),
        r"takes 1 positional arguments, and is given 2",
        "the parameters that its base class has",
    ),
    "objective, setup": (
        ObjectiveOffer("odd", named("SetUpAlone"), needs=("ids",)),
        r"the setup of the objective 'odd' of kdmesh-odd 2 takes no `ids`, which its offer needs",
        "a parameter `ids`",
    ),
    "rule, a need": (
        ConsensusOffer("odd", named("Mean"), needs=("ids",)),
        r"the forward of the consensus rule 'odd' of kdmesh-odd 2 takes no `ids`",
        "a parameter `ids`",
    ),
    "rule, labels": (
        ConsensusOffer("odd", named("AsksLabels")),
        r"asks for `labels`, which it is not given",
        "needs_labels=True in its offer",
    ),
    "rule, weights": (
        ConsensusOffer("odd", named("AsksRound"), spaces=("loss",)),
        r"the weights of the consensus rule 'odd' of kdmesh-odd 2 asks for `round`",
        "needs=('round',)",
    ),
    "gate, a need": (
        GateOffer("odd", named("Open"), needs=("signal", "losses")),
        r"the forward of the gate 'odd' of kdmesh-odd 2 takes no `losses`",
        "a parameter `losses`",
    ),
    "gate, not declared": (
        GateOffer("odd", named("Open")),
        r"asks for `signal`, which it is not given",
        "needs=('signal',)",
    ),
    "signal, a need": (
        SignalOffer("odd", named("softness"), needs=("x", "taps")),
        r"the call of the kind of signal 'odd' of kdmesh-odd 2 takes no `taps`",
        "a parameter `taps`",
    ),
    "signal, not declared": (SignalOffer("odd", named("softness")), r"asks for `x`, which it is not", "needs=('x',)"),
    "signal, a module": (SignalOffer("odd", named("SoftModule"), needs=("x",)), r"takes no `x`", "a parameter `x`"),
}


def offered(monkeypatch: pytest.MonkeyPatch, offer: Offer) -> None:
    """A distribution that offers it."""
    monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)
    record = PluginRecord("odd", "kdmesh-odd", "2", claims={(offer.kind, offer.name): offer})
    monkeypatch.setattr(registry(), "records", [*registry().records, record])


def meshed(mesh: Any, offer: Offer) -> Any:
    """A mesh with it, in its place."""
    made = mesh("abs", train={"steps": 2})
    made.flow("labels", ["a", "b"], objective="ce")
    if isinstance(offer, ConsensusOffer):
        made.consensus("c", "odd", space=offer.spaces[0])
        made.flow(["a", "b"], "c", refresh="step")
        made.flow("c", "s", objective="kl")
        return made
    place = {"objectives": "objective", "gates": "gate", "signals": "signal"}[offer.kind]
    made.flow("a", "s", **{"objective": "kl", "refresh": "step", place: "odd"})
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_parameter_that_does_not_fit_is_named_before_the_run(
    mesh: Any, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    offer, said, instead = CASES[case]
    offered(monkeypatch, offer)
    with pytest.raises(MeshError, match=said) as raised:
        meshed(mesh, offer).run(backend="inline")
    assert not isinstance(raised.value, RunFailed)
    assert instead in raised.value.instead
    assert raised.value.where.startswith(("flows.1.", "consensus.c"))


@pytest.mark.parametrize(
    "offer",
    [
        ObjectiveOffer("odd", named("Plain")),
        ObjectiveOffer("odd", named("AsksEpoch"), needs=("epoch",)),
        ObjectiveOffer("odd", named("Decorated")),
        ConsensusOffer("odd", named("AsksLabels"), needs_labels=True),
        GateOffer("odd", named("Open"), needs=("signal",)),
        SignalOffer("odd", named("softness"), needs=("x",)),
        SignalOffer("odd", named("SoftModule")),
    ],
    ids=lambda offer: f"{offer.kind}, {offer.factory.partition(':')[2]}",
)
def test_what_fits_runs(mesh: Any, monkeypatch: pytest.MonkeyPatch, offer: Offer) -> None:
    offered(monkeypatch, offer)
    assert meshed(mesh, offer).run(backend="inline").summary["agents"]
