"""Code of a plugin that raises, or gives what is no signal, is named: distribution, version, node and step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kdmesh.contracts.rule import Rule
from kdmesh.errors import RunFailed
from kdmesh.offers import Config, ConsensusOffer, ObjectiveOffer, StrategyOffer
from kdmesh.plugins import PluginRecord, registry


class Choice(Config):
    """What goes wrong."""

    what: str = "raise"


class Wrong(Rule):
    """Gives what is asked for from its second call on."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.calls = what, 0

    def forward(self, values: Tensor, **given: Any) -> Tensor:
        self.calls += 1
        mean = values.mean(0)
        if self.calls == 1:
            return mean
        match self.what:
            case "raise":
                raise KeyError("no such source")
            case "nan":
                return mean * float("nan")
            case "shape":
                return mean[:, :-1]
            case "heavy":
                return mean * 2
            case _:
                return mean - 0.9


class Moody:
    """An objective that raises."""

    def setup(self, *shapes: Any) -> None:
        """Nothing to build."""

    def to(self, device: Any) -> Any:
        """Nothing to move."""
        return self

    def parameters(self) -> list[Any]:
        """Nothing to train."""
        return []

    def forward(self, student: Tensor, target: Tensor, **given: Any) -> Tensor:
        """Raise."""
        raise ZeroDivisionError("nothing to divide by")


class Draws:
    """A strategy that raises."""

    def draw(self, canvas: Any) -> None:
        """Raise."""
        raise IndexError("no third teacher")


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that offers them."""
    offers = [
        ConsensusOffer("wrong", f"{__name__}:Wrong", Choice),
        ObjectiveOffer("moody", f"{__name__}:Moody"),
        StrategyOffer("draws", f"{__name__}:Draws"),
    ]
    record = PluginRecord("foo", "kdmesh-foo", "1.2.3", claims={(offer.kind, offer.name): offer for offer in offers})
    for offer in offers:
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)
    monkeypatch.setattr(registry(), "records", [*registry().records, record])


def consensus(mesh: Any, what: str, refresh: str = "step") -> Any:
    """Two peers and a student that reads their consensus."""
    made = mesh(["a", "b", "s"])
    made.consensus("c", {"wrong": {"what": what}})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow(["a", "b"], "c", refresh=refresh)
    made.flow("c", "s", objective="kl")
    return made


def test_a_rule_that_raises_names_itself_its_node_and_the_step(mesh: Any) -> None:
    with pytest.raises(RunFailed) as caught:
        consensus(mesh, "raise").run(backend="inline")
    assert str(caught.value).startswith(
        "consensus.c: the consensus rule 'wrong' of kdmesh-foo 1.2.3 failed to combine at step 1: KeyError"
    )
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_objective_that_raises_names_itself_its_flow_and_the_step(mesh: Any) -> None:
    made = mesh(["a", "s"])
    made.flow("a", "s", objective="moody", refresh="step")
    with pytest.raises(RunFailed, match=r"objective 'moody' of kdmesh-foo 1\.2\.3 failed.*step 0 on the flow a -> s"):
        made.run(backend="inline")


def test_a_strategy_that_raises_names_itself_and_where_it_was_written(mesh: Any) -> None:
    made = mesh(["a", "s"])
    made.connect("draws")
    with pytest.raises(RunFailed, match=r"connect\.0\.draws: the strategy 'draws' of kdmesh-foo 1\.2\.3 failed as it"):
        made.plan()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nan", r"\d+ values that are not finite"),
        ("shape", r"gave .*\(32, 2\).*, not a tensor of shape \(32, 3\)"),
        ("heavy", "no distribution: .* off from 1 by 1"),
        ("negative", "no distribution: the least value is -0"),
    ],
)
def test_strict_signals_stop_what_is_no_distribution_at_the_edge(mesh: Any, what: str, said: str) -> None:
    when = "at step 1" if what == "shape" else "for its measurement"  # the first that looks at its numbers
    with pytest.raises(RunFailed, match=rf"kdmesh-foo 1\.2\.3 failed to combine {when}: ValueError: it .*{said}"):
        consensus(mesh, what).run(backend="inline", strict_signals=True)


def test_strict_signals_change_no_bit_of_a_run_without_fault(mesh: Any) -> None:
    made = mesh(["a", "b", "s"])
    made.consensus("c", "mean")
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow(["a", "b"], "c", refresh="step")
    made.flow("c", "s", objective="kl")
    hashes = [made.run(backend="inline", strict_signals=strict)["s"].weights_sha256 for strict in (False, True)]
    assert hashes[0] == hashes[1]


def test_a_sample_of_weight_zero_may_hold_anything() -> None:
    from kdmesh.hosts.consensus import refuse_improper

    value = torch.tensor([[0.5, 0.5], [float("nan"), 1.0]])
    refuse_improper(value, value.shape, "probs", torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="1 values"):
        refuse_improper(value, value.shape, "probs", None)
