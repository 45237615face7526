"""What others' objectives, rules, signals, views and models give is checked; what they are given is kept from them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdmesh.contracts.rule import Rule
from kdmesh.engine.check import examine
from kdmesh.errors import RunFailed
from kdmesh.objectives import Objective
from kdmesh.offers import Config, ConsensusOffer, ObjectiveOffer, SignalOffer, ViewOffer
from kdmesh.plugins import PluginRecord, registry


class Choice(Config):
    """What it gives."""

    what: str = ""


LOSSES: dict[str, Any] = {
    "none": lambda loss: None,
    "a number": lambda loss: 1.0,
    "detached": lambda loss: loss.detach(),
    "a row each": lambda loss: loss.expand(4),
    "whole numbers": lambda loss: loss.detach().long(),
}


class Loss(Objective):
    """A mean squared difference, but for what is asked for."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, student: Tensor, target: Tensor, **given: Any) -> Any:
        return LOSSES.get(self.what, lambda loss: loss)((student - target).square().mean())


class Drawn(Objective):
    """Its adapter is drawn by numpy and Python."""

    def setup(self, student: torch.Size, target: torch.Size, **facts: Any) -> None:
        drawn = [*np.random.rand(student[0]).tolist(), random.random()]
        self.scale = nn.Parameter(torch.tensor(drawn))

    def forward(self, student: Tensor, target: Tensor, **given: Any) -> Tensor:
        return (student * self.scale[:-1] * self.scale[-1] - target).square().mean()


class Counting(Rule):
    """The mean, sharper with every batch that it was asked about."""

    def __init__(self, what: str = "") -> None:
        super().__init__()
        self.what = what
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, values: Tensor, **given: Any) -> Any:
        self.asked += len(values[0])
        mean = values.mean(0)
        given = {"none": None, "shape": mean[:, :-1], "whole": mean.long()}
        return given[self.what] if self.what else (mean * (1 + self.asked / 100)).softmax(-1)


class Signal:
    """The softmax of logits, but for what is asked for."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, value: Tensor) -> Any:
        if self.what == "in place":
            return value.mul_(0.5).softmax(-1)
        if self.what == "drawn":
            noise = torch.tensor(np.random.rand(3) + random.random())
            return (value + torch.rand_like(value) + noise.to(value)).softmax(-1)
        return {"none": None, "rows": value[:1]}[self.what] if self.what else value.softmax(-1)


class View:
    """Noise, but for what is asked for."""

    def __init__(self, seed: int, what: str) -> None:
        self.what, self.calls = what, 0

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Any:
        self.calls += 1
        if self.what == "late":
            return x * torch.nan if self.calls == 71 else x
        if self.what == "in place":
            return x.mul_(0.5)
        if self.what == "drawn":
            return x + torch.rand(x.shape[1:]) + random.random()
        return {"none": None, "shape": x[:, :-1], "type": x.double()}[self.what]


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin of version 2 would offer."""
    record = PluginRecord("odd", "kdmesh-odd", "2")
    for offer in (
        ObjectiveOffer("loss", f"{__name__}:Loss", config=Choice),
        ObjectiveOffer("drawn", f"{__name__}:Drawn"),
        ConsensusOffer("counting", f"{__name__}:Counting", config=Choice, stateful=True),
        SignalOffer("odd", f"{__name__}:Signal", config=Choice),
        ViewOffer("odd", f"{__name__}:View", config=Choice),
    ):
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)
        record.claims[offer.kind, offer.name] = offer
    monkeypatch.setattr(registry(), "records", [*registry().records, record])


def pair(mesh: Any, **flow: Any) -> Any:
    """Two peers, of which one learns from the other in each step."""
    made = mesh("ab", train={"epochs": 2})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", **{"objective": "kl", "refresh": "step", **flow})
    return made


@pytest.mark.parametrize("what", LOSSES)
def test_what_is_no_loss_is_named(mesh: Any, what: str) -> None:
    with pytest.raises(RunFailed, match=r"objective 'loss' of kdmesh-odd 2 .* a -> b: ValueError: it gave"):
        pair(mesh, objective={"loss": {"what": what}}).run(backend="inline")


def test_a_sound_loss_trains(mesh: Any) -> None:
    assert pair(mesh, objective="loss").run(backend="inline")["b"].metrics["test"]["accuracy"] > 0


@pytest.mark.parametrize("what", ["none", "shape", "whole"])
def test_what_a_rule_gives_is_checked(mesh: Any, what: str) -> None:
    made = mesh("abs", train={"epochs": 1})
    made.flow("labels", ["a", "b", "s"], objective="ce")
    made.consensus("c", {"counting": {"what": what}})
    made.flow(["a", "b"], "c", refresh="step")
    made.flow("c", "s", objective="kl")
    with pytest.raises(RunFailed, match=r"consensus rule 'counting' of kdmesh-odd 2 .*it gave"):
        made.run(backend="inline")


@pytest.mark.parametrize("what", ["none", "rows"])
def test_what_is_no_signal_is_refused_by_check(mesh: Any, what: str) -> None:
    made = pair(mesh, signal={"odd": {"what": what}})
    with pytest.raises(RunFailed, match=r"signal 'odd' of kdmesh-odd 2 .*it gave"):
        examine(made.plan(), made._modules, made.table)


@pytest.mark.parametrize("what", ["none", "shape", "type"])
def test_what_is_no_view_is_named(mesh: Any, what: str) -> None:
    made = mesh({"a": {"view": {"augment": [{"odd": {"what": what}}]}}}, train={"epochs": 1})
    made.flow("labels", "a", objective="ce")
    with pytest.raises(RunFailed, match=r"'odd' of kdmesh-odd 2 failed to augment samples of a at step 0: .*it gave"):
        made.run(backend="inline")


def test_a_view_whose_numbers_break_late_is_named_by_the_loss(mesh: Any) -> None:
    made = mesh({"a": {"view": {"augment": [{"odd": {"what": "late"}}]}}}, train={"epochs": 200})
    made.flow("labels", "a", objective="ce")
    with pytest.raises(RunFailed, match=r"the loss became nan at step \d+ .*by the view 'odd' of kdmesh-odd 2"):
        made.run(backend="inline")


def test_a_signal_that_works_in_place_or_draws_leaves_its_senders_training_alone(mesh: Any) -> None:
    expected = mesh("a", train={"epochs": 2})
    expected.flow("labels", "a", objective="ce")
    alone = expected.run(backend="inline")["a"].weights_sha256
    for what in ("", "in place", "drawn"):
        runs = []
        for seed in (0, 1):  # of generators that nobody here should read
            np.random.seed(seed)
            random.seed(seed)
            runs.append(pair(mesh, signal={"odd": {"what": what}}).run(backend="inline"))
        assert runs[0]["a"].weights_sha256 == alone
        assert runs[0]["b"].weights_sha256 == runs[1]["b"].weights_sha256


def test_a_view_that_draws_is_the_same_again_and_moves_no_generator(mesh: Any) -> None:
    def run(seed: int, what: str) -> str:
        made = mesh({"a": {"view": {"augment": [{"odd": {"what": what}}]}}}, train={"epochs": 2})
        made.flow("labels", "a", objective="ce")
        random.seed(seed)
        before = random.getstate()
        sha: str = made.run(backend="inline")["a"].weights_sha256
        assert random.getstate() == before
        return sha

    assert run(0, "drawn") == run(1, "drawn") != run(0, "in place")


@pytest.mark.parametrize(("what", "said"), [("in place", "in place"), ("drawn", "global generator")])
def test_strictly_they_are_refused(mesh: Any, what: str, said: str) -> None:
    with pytest.raises(RunFailed, match=said):
        pair(mesh, signal={"odd": {"what": what}}).run(backend="inline", strict_signals=True)
    made = mesh({"a": {"view": {"augment": [{"odd": {"what": what}}]}}}, train={"epochs": 1})
    made.flow("labels", "a", objective="ce")
    with pytest.raises(RunFailed, match=said):
        made.run(backend="inline", strict_signals=True)


def test_what_an_objective_draws_by_numpy_belongs_to_the_run(mesh: Any) -> None:
    made = []
    for seed in (0, 1):
        np.random.seed(seed)
        made.append(pair(mesh, objective="drawn").run(backend="inline")["b"].weights_sha256)
    assert made[0] == made[1]


def test_measuring_moves_no_state_and_no_weights(mesh: Any, opened: Any) -> None:
    """A rule that counts what it is asked: as often as it teaches, however often it is measured."""

    def run(**fields: Any) -> tuple[float, str]:
        made = mesh("abs", train={"epochs": 2, **fields})
        made.flow("labels", ["a", "b", "s"], objective="ce")
        made.consensus("c", "counting")
        made.flow(["a", "b"], "c", refresh="step")
        made.flow("c", "s", objective="kl")
        running, hosts = opened(made)
        running.execute()
        host = hosts["host0"]
        host.evaluate_consensus(
            "c", "validation", ["a", "b"], *(host.publish(n, "validation", ("",), True) for n in "ab")
        )
        asked: float = host.consensus["c"].rule.asked.item()
        return asked, host.describe()["s"]["weights_sha256"]

    asked, sha = run()
    assert asked == 2 * 90
    assert run(evaluate_every=1) == (asked, sha)


def test_a_consensus_is_measured_at_temperature_1_as_its_sources_are(mesh: Any) -> None:
    """Of one source alone it has that source's figures, whatever temperature its readers ask for."""
    made = mesh("ts", train={"epochs": 2})
    made.flow("labels", "t", objective="ce")
    made.consensus("c", "mean")
    made.flow("t", "c")
    made.flow("c", "s", objective={"kl": {"temperature": 4}})
    result = made.run(backend="inline")
    own, its = result["t"].metrics["test"], result.summary["consensus"]["c"]["metrics"]["test"]
    for name in ("accuracy", "loss", "ece"):
        assert its[name] == pytest.approx(own[name], rel=1e-4, abs=1e-6)
