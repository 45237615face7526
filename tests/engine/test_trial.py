"""What `check` tries on stand-ins for models: objectives, rules, views and signals; and what it leaves alone."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdmesh.checks.checked import Checked
from kdmesh.contracts.rule import Rule
from kdmesh.engine import trial
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.objectives import Objective
from kdmesh.offers import Config, ConsensusOffer, ObjectiveOffer, SignalOffer, ViewOffer
from kdmesh.plugins import PluginRecord, registry
from kdmesh.spec.read import bundled, read_mesh


class Choice(Config):
    """What goes wrong, or how many rows are needed."""

    what: str = ""
    least: int = 0


class Loss(Objective):
    """A mean squared difference, with an adapter and a memory of the whole stream."""

    def __init__(self, what: str, least: int) -> None:
        super().__init__()
        self.what, self.least = what, least

    def setup(self, student: torch.Size, target: torch.Size, **facts: Any) -> None:
        if self.what == "setup":
            raise ZeroDivisionError("nothing to divide by")
        if len(facts["ids"]) < self.least:
            raise ValueError(f"{len(facts['ids'])} samples, and {self.least} are needed")
        self.adapter = nn.Linear(student[0], target[0])
        self.memory = nn.Buffer(torch.zeros(1 + int(facts["ids"].max())))

    def forward(self, student: Tensor, target: Tensor, *, ids: Tensor, **given: Any) -> Tensor:
        self.memory[ids] += 1
        if self.what == "forward":
            raise KeyError("no such thing")
        if len(student) < 3:
            raise ValueError("a batch of two has no pairs")
        if self.what == "broken":
            return (student * float("nan")).sum()
        return (self.adapter(student) - target).square().mean()

    def report(self) -> dict[str, Any]:
        return {"seen": self.memory.sum() if self.what == "report" else float(self.memory.sum())}


class Counting(Rule):
    """The mean; its state cannot be copied, or not be kept."""

    def __init__(self, what: str, least: int) -> None:
        super().__init__()
        self.what, self.calls = what, 0
        if what == "copied":
            self.lock = threading.Lock()

    def forward(self, values: Tensor, **given: Any) -> Tensor:
        self.calls += 1
        if self.what == "second" and self.calls == 2:
            raise RuntimeError("only once")
        return values.mean(0)

    def get_extra_state(self) -> Any:
        return {"calls": self.calls} if self.what == "kept" else torch.zeros(())

    def set_extra_state(self, state: Any) -> None:
        pass


class Signal:
    """Uses what tensors without memory do not have."""

    def __init__(self, what: str, least: int) -> None:
        self.what = what

    def __call__(self, value: Tensor) -> Tensor:
        if float(value.max()) < 0:
            raise ValueError("it is all below zero")
        return value.softmax(-1)


class View:
    """Refuses what is not between 0 and 1."""

    def __init__(self, seed: int, what: str, least: int) -> None:
        pass

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Tensor:
        if x.min() < 0:
            raise ValueError("values below 0")
        return x


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin of version 3 would offer."""
    record = PluginRecord("try", "kdmesh-try", "3")
    for offer in (
        ObjectiveOffer("try", f"{__name__}:Loss", config=Choice, needs=("ids",)),
        ConsensusOffer("try", f"{__name__}:Counting", config=Choice, stateful=True),
        SignalOffer("try", f"{__name__}:Signal", config=Choice),
        ViewOffer("try", f"{__name__}:View", config=Choice),
    ):
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)
        record.claims[offer.kind, offer.name] = offer
    monkeypatch.setattr(registry(), "records", [*registry().records, record])


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The rows of every try, in order; None is a try at full size."""
    made: list[int | None] = []

    def run(plan: Any, found: Checked, rows: int | None) -> None:
        made.append(rows)
        real(plan, found, rows)

    real = trial._run
    monkeypatch.setattr(trial, "_run", run)
    return made


def check(made: Any) -> Checked:
    return examine(made.plan(), made._modules, made.table)


def pair(mesh: Any, agents: Any = "ab", **flow: Any) -> Any:
    """Two peers, of which one learns from the other."""
    made = mesh(agents)
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", **{"objective": "kl", "refresh": "step", **flow})
    return made


def agreed(mesh: Any, what: str, refresh: str = "step") -> Any:
    """Two peers that hear what they say together."""
    made = mesh("ab")
    made.consensus("c", {"try": {"what": what}})
    made.flow(["a", "b"], "c", refresh=refresh)
    made.flow("c", ["a", "b"], objective="kl")
    made.flow("labels", ["a", "b"], objective="ce")
    return made


@pytest.mark.parametrize("refresh", ["step", "epoch", "once"])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("setup", "failed to be set up on the flow a -> b: ZeroDivisionError: nothing to divide by"),
        ("forward", "failed to compute at step 0 on the flow a -> b: KeyError"),
        ("report", "failed to report on the flow a -> b: TypeError: it gave a tensor"),
    ],
)
def test_an_objective_is_tried(mesh: Any, what: str, said: str, refresh: str) -> None:
    made = mesh({"a": {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}, "b": {}}) if refresh == "once" else None
    if made is None:
        made = pair(mesh, objective={"try": {"what": what}}, refresh=refresh)
    else:
        made.flow("a", "b", objective={"try": {"what": what}})
    with pytest.raises(MeshError) as error:
        check(made)
    number = {"once": 0}.get(refresh, 1)
    assert str(error.value).startswith(f"flows.{number}: the objective 'try' of kdmesh-try 3 failed")
    assert said.replace("at step 0", "") in str(error.value).replace("at step 0", "").replace("at step 1", "")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("second", "failed to combine at step 1: RuntimeError: only once"),
        ("copied", "failed to combine for its measurement: TypeError: cannot pickle '_thread.lock'"),
    ],
)
def test_a_rule_is_tried(mesh: Any, what: str, said: str) -> None:
    with pytest.raises(MeshError) as error:
        check(agreed(mesh, what))
    assert str(error.value).startswith(f"consensus.c: the consensus rule 'try' of kdmesh-try 3 {said}")


def test_a_state_that_no_checkpoint_holds_is_refused(mesh: Any) -> None:
    with pytest.raises(MeshError, match=r"the consensus rule .try. of kdmesh-try 3 failed to be kept in a checkpoint"):
        check(agreed(mesh, "kept"))
    assert not [note for note in check(agreed(mesh, "")).notes if "random" in note]


def test_a_view_and_a_signal_are_tried_on_real_numbers(mesh: Any) -> None:
    signal: dict[str, Any] = {"signal": {"try": {}}, "refresh": "step"}
    check(pair(mesh, **signal))
    with pytest.raises(MeshError, match=r"the view .try. of kdmesh-try 3 failed to augment .* at step 0: .*below 0"):
        check(pair(mesh, {"a": {"view": {"augment": ["try"]}}, "b": {}}))


def test_a_batch_of_its_own_size_decides(mesh: Any, tries: list[int | None]) -> None:
    made = pair(mesh, objective={"try": {"least": 90}})
    check(made)
    assert tries == [32, None]  # 32 samples are too few for its setup, all 90 of the stream are not
    with pytest.raises(MeshError, match="91 are needed"):
        check(pair(mesh, objective={"try": {"least": 91}}))
    tries.clear()
    made = mesh("ab", train={"batch_size": 2})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", objective="try", refresh="step")
    with pytest.raises(MeshError, match="a batch of two has no pairs"):
        check(made)


def test_a_loss_that_breaks_on_random_outputs_is_told_and_may_run(mesh: Any) -> None:
    found = check(pair(mesh, objective={"try": {"what": "broken"}}))
    (note,) = [note for note in found.notes if "random" in note]
    assert note.startswith("tried on random outputs, the loss became nan at step 0 on the flow a -> b")


def test_a_tap_without_a_name_is_refused_in_plain_words(mesh: Any) -> None:
    with pytest.raises(MeshError, match="a tap that names no layer") as error:
        check(pair(mesh, objective="hint", tap=""))
    assert error.value.where == "flows.1.tap"


def test_nothing_is_left_behind(mesh: Any) -> None:
    given = nn.Linear(8, 3)
    made = mesh({"a": {"model": given}, "b": {}})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", objective="kl", refresh="step")
    before = [parameter.clone() for parameter in given.parameters()]
    plan, threads = made.plan(), torch.get_num_threads()
    found = examine(plan, made._modules, made.table)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    trial.rehearse(plan, found)
    drawn = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    assert drawn == (torch.rand(1).item(), np.random.rand(), random.random())
    assert torch.get_num_threads() == threads
    assert all(map(torch.equal, before, given.parameters())) and all(p.grad is None for p in given.parameters())
    assert plan.spec.train.batch_size == 32 and len(found.streams["train"].rows) == 90


@pytest.mark.parametrize("name", ["council", "hint", "parties", "previous-epoch", "specialists"])
def test_a_bundled_file_is_tried_once_and_small(name: str, tries: list[int | None]) -> None:
    found = examine(make_plan(read_mesh(bundled()[name]), registry()))
    assert len(tries) == 1 and tries[0] is not None
    assert not [note for note in found.notes if "random" in note]


def test_a_mesh_of_too_many_flows_is_not_tried_and_says_so(
    mesh: Any, tries: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "FLOWS", 2)
    found = check(pair(mesh, objective="kl"))
    assert tries == []
    assert "no trial on random outputs: 3 flows, and 2 at most are tried" in found.notes
