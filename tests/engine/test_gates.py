"""Gates: what is shut is skipped to the bit, wherever agents live and however often a run is broken off."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

import kdmesh
from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.contracts.events import Trained
from kdmesh.contracts.run_files import LOG
from kdmesh.engine import controls, notes
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.engine.rounds import Rounds
from kdmesh.errors import MeshError
from kdmesh.gates import Gate
from kdmesh.graph.fragments import whole
from kdmesh.graph.planner import make_plan
from kdmesh.graph.steps import Op
from kdmesh.hosts import gates
from kdmesh.objectives import Objective, batchmean
from kdmesh.offers import Config, GateOffer, ObjectiveOffer
from kdmesh.plugins import fault, registry
from kdmesh.report.log import Log
from kdmesh.report.plan_text import plan_json, plan_text
from kdmesh.schema import json_schema
from kdmesh.spec.read import parse

HERE = __name__
MODEL = {"mlp": {"hidden": [8]}}
SEEN: list[dict[str, Any]] = []


class Steps(Config):
    """The steps in which it is open."""

    open: list[int] = Field(default_factory=list)


class Listed(Gate):
    """Open in some steps."""

    def __init__(self, open: list[int]) -> None:
        super().__init__()
        self.open = open

    def forward(self, *, step: int) -> bool:
        return step in self.open


class Moody(Gate):
    """Open where the own logits are larger than they were on average, or where the dice say so."""

    def setup(self, outputs: torch.Size) -> None:
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, *, own: Tensor, epoch: int) -> bool:
        now = own.abs().mean(0)
        larger = bool((now > self.mean).sum() > len(now) / 2)
        self.count += 1
        self.mean += (now - self.mean) / self.count
        return larger or bool(torch.rand(()) < 0.3) or epoch > 50


class Told(Gate):
    """Open, and remembers all that it was told."""

    def forward(self, **facts: Any) -> bool:
        SEEN.append(facts)
        return True


class Better(Gate):
    """Open while the last evaluation knows less than half, and in every third step."""

    def forward(self, *, metrics: dict[str, float], step: int) -> bool:
        return metrics.get("accuracy", 0.0) < 0.5 or step % 3 == 0


class Halves(Gate):
    """The first half of the rows, or none in odd steps."""

    def forward(self, *, step: int, losses: Tensor) -> Tensor:
        SEEN.append({"losses": losses})
        return (torch.arange(len(losses)) < (0 if step % 2 else len(losses) // 2)).to(losses.dtype)


class Of(Gate):
    """Open, and remembers what it was told of a batch and of another agent."""

    def forward(self, *, other: Tensor, ids: Tensor, **facts: Any) -> bool:
        SEEN.append({"other": other, "ids": ids})
        return True


class Draws(Gate):
    """Open, and remembers what it draws."""

    def forward(self, **facts: Any) -> bool:
        SEEN.append({"drawn": torch.rand(2)})
        return True


class Counts(Objective):
    """Cross-entropy that says how often it was asked, of which no checkpoint knows, and draws."""

    calls = 0

    def forward(self, student: Tensor, target: Tensor, *, form: str, weights: Any = None, **facts: Any) -> Tensor:
        self.calls += 1
        torch.rand(())
        return batchmean(F.cross_entropy(student, target, reduction="none")[:, None], weights)

    def report(self) -> dict[str, float]:
        return {"calls": float(self.calls)}


class Wrong(Gate):
    """Whatever a test wants it to say."""

    says: Any = True

    def forward(self, **facts: Any) -> Any:
        return self.says(**facts) if callable(self.says) else self.says


class When(Objective):
    """A loss that is told how far the training is."""

    def forward(self, student: Tensor, target: Tensor, *, form: str, weights: Any = None, **facts: Any) -> Tensor:
        SEEN.append(facts)
        return batchmean((student - target).square(), weights)


class Remembers(When):
    """The same with a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))


class Fresh(Gate):
    """Open in the first steps after an evaluation, of which each moves it a step."""

    def setup(self, outputs: torch.Size) -> None:
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, *, measured_age: int | None, measured_epoch: int | None) -> bool:
        self.seen += measured_age == 0
        return measured_age is None or measured_age <= int(self.seen)


DATED = ("step", "epoch", "metrics", "measured_step", "measured_epoch", "measured_age")
GATES = [
    GateOffer("listed", f"{HERE}:Listed", Steps, needs=("step",)),
    GateOffer("moody", f"{HERE}:Moody", needs=("own", "epoch")),
    GateOffer("told", f"{HERE}:Told", needs=("step", "epoch", "round", "metrics", "agreement")),
    GateOffer("dated", f"{HERE}:Told", needs=DATED),
    GateOffer("fresh", f"{HERE}:Fresh", needs=("measured_age", "measured_epoch")),
    GateOffer("rows", f"{HERE}:Told", needs=("own", "signal", "losses", "counted", "confidence", "labels", "ids")),
    GateOffer("better", f"{HERE}:Better", needs=("metrics", "step")),
    GateOffer("halves", f"{HERE}:Halves", needs=("step", "losses"), rows=True),
    GateOffer("of", f"{HERE}:Of", needs=("other", "ids")),
    GateOffer("draws", f"{HERE}:Draws", needs=("step",)),
    GateOffer("draws_of_losses", f"{HERE}:Draws", needs=("losses", "step")),
    GateOffer("timed", f"{HERE}:Told", needs=("step",)),
    GateOffer("compared", f"{HERE}:Told", needs=("losses", "counted")),
    GateOffer("agreeing", f"{HERE}:Told", needs=("agreement",)),
    GateOffer("wrong", f"{HERE}:Wrong", needs=("own",)),
    GateOffer("factors", f"{HERE}:Wrong", needs=("own",), rows=True),
]
OBJECTIVES = [
    ObjectiveOffer("when", f"{HERE}:When", forms=("logits",), needs=("step", "epoch", "round")),
    ObjectiveOffer("counts", f"{HERE}:Counts", forms=("labels",)),
    ObjectiveOffer("remembers", f"{HERE}:Remembers", forms=("logits",)),
]


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for offer in (*GATES, *OBJECTIVES):
        assert not fault(offer.kind, offer)
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)
    SEEN.clear()
    yield


def run(made: kdmesh.Mesh, **request: Any) -> Any:
    return run_once(Request(parse(made._fields), "inline", table=made.table, **request))[0]


def check(made: kdmesh.Mesh) -> None:
    examine(made.plan(), made._modules, made.table)


def told(summary: dict[str, Any]) -> Any:
    """What must not depend on where agents live, and on breaks."""
    return {
        name: [agent[key] for key in ("weights_sha256", "updates", "metrics")] + [agent.get("gates")]
        for name, agent in summary["agents"].items()
    }


# -- what is skipped ------------------------------------------------------------------


def listed(*steps: int) -> dict[str, Any]:
    return {"listed": {"open": list(steps)}}


@pytest.mark.parametrize("at", ["agent", "flow"])
def test_fifty_paused_steps_move_no_bit(mesh: Any, opened: Any, at: str) -> None:
    gate = {"gate": listed(*range(4))}
    train = {"steps": 54, "optimizer": {"adamw": {"lr": 0.01}}, "schedule": "cosine", "clip": 1.0}
    made = mesh({"s": gate if at == "agent" else {}, "e": {"update": {"ema": {"of": "s"}}}}, train=train)
    made.flow("labels", "s", objective="ce", **(gate if at == "flow" else {}))
    made.flow("s", "s", objective="mse", refresh="step", **(gate if at == "flow" else {}))
    _, hosts = opened(made)
    (host,) = hosts.values()
    host.start("s", {"s": 54})
    host.begin("s", "main", {"s": 54, "e": 54}, 0, {})
    weights = host.weights["s"], host.weights["e"]

    def state() -> Any:
        facts = [one.progress() for one in weights]
        return [one.state() for one in weights], [fact[0] for fact in facts], [fact[1] for fact in facts]

    host.run(whole("host0", "s", 0, 4)[0])
    before = state()
    _, report = host.run(whole("host0", "s", 4, 54)[0])
    after = state()
    assert before[1] == after[1] and before[1][0]["updates"] == 4 and before[1][1]["updates"] == 4
    for one, other in zip(before[0] + before[2], after[0] + after[2], strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert before[2][0], "AdamW has moments"
    assert report.losses == {} and {value for row in report.flows for value in row.values} == {None}


@pytest.mark.parametrize("train", [{}, {"accumulate": 2, "schedule": "cosine"}], ids=["", "accumulated"])
def test_what_is_always_open_changes_no_bit(mesh: Any, hashes: Any, train: dict[str, Any]) -> None:
    def made(gate: Any) -> kdmesh.Mesh:
        made = mesh({"t": {}, "s": {"gate": gate}, "e": {"update": {"ema": {"of": "s"}}}}, train=train)
        made.flow("labels", ["t", "s"], objective="ce", gate=gate)
        made.flow("t", "s", objective={"kl": {"temperature": 2}}, refresh="3 steps", gate=gate)
        made.flow("t", "s", objective="kl", refresh="step", gate=gate)
        return made

    assert hashes(made(listed(*range(100)))) == hashes(made(None))


def test_an_accumulation_goes_on_without_what_is_shut(mesh: Any, start: Any) -> None:
    """Windows of two batches: both, the first, the second, neither, each of its share of all the window's rows."""
    made = mesh(["s"], train={"accumulate": 2, "epochs": 3})
    made.flow("labels", "s", objective="ce", gate=listed(0, 1, 2, 5, 8))
    begun = start(made)
    module, data = begun.modules["s"], begun.batches(3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    for first in range(0, len(data), 2):
        window = data[first : first + 2]
        optimizer.zero_grad()
        for step, at in enumerate(window, first):
            if step in (0, 1, 2, 5, 8):
                share = len(at) / sum(map(len, window))
                (F.cross_entropy(module(begun.x[at]), begun.y[at]) * share).backward()
        optimizer.step()
    result = made.run(backend="inline")
    for ours, theirs in zip(result["s"].module.parameters(), module.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert result.summary["agents"]["s"]["updates"] == 4  # of five windows


def test_flows_that_are_open_are_learned_from(mesh: Any, hashes: Any) -> None:
    found = []
    for gate in (listed(), None):
        made = mesh(["t", "s"])
        made.flow("labels", ["t", "s"], objective="ce")
        if gate:
            made.flow("t", "s", objective="kl", refresh="step", gate=gate)
        found.append(hashes(made)["s"])
    assert found[0] == found[1]


def test_rows_of_factor_0_are_left_out(mesh: Any, hashes: Any) -> None:
    found = []
    for gate in ("halves", None):
        made = mesh(["s"], train={"steps": 4})
        made.flow("labels", "s", objective="ce", **({"gate": gate} if gate else {}))
        result = made.run(backend="inline")
        found.append(result.summary["agents"]["s"])
    assert found[0]["gates"] == {"labels -> s": {"gate": "halves", "asked": 4, "shut": 2, "kept": 0.25}}
    assert found[0]["updates"] == 2 and found[1]["updates"] == 4 and "gates" not in found[1]


def test_losses_of_rows_are_those_of_the_objective(mesh: Any, start: Any) -> None:
    made = mesh(["s"], train={"steps": 1, "batch_size": 30})
    made.flow("labels", "s", objective="ce", gate="halves")
    begun = start(made)
    SEEN.clear()
    made.run(backend="inline")
    (at,) = begun.batches(1)[:1]
    expected = F.cross_entropy(begun.modules["s"](begun.x[at]), begun.y[at], reduction="none")
    assert torch.allclose(SEEN[-1]["losses"], expected, rtol=1e-6)
    assert torch.equal(SEEN[-1]["losses"].argsort(), expected.argsort())


def test_what_a_gate_is_told_of_rows(mesh: Any) -> None:
    made = mesh({"t": {"update": "frozen", "model": MODEL}, "s": {}}, train={"steps": 1})
    made.flow("labels", "s", objective="ce")
    made.flow("t", "s", objective="kl", gate="rows")
    made.run(backend="inline")
    facts = SEEN[-1]
    assert facts.keys() == {"own", "signal", "losses", "counted", "confidence", "labels", "ids"}
    assert not any(fact.requires_grad for fact in facts.values())
    assert torch.equal(facts["confidence"], facts["signal"].softmax(-1).amax(-1))
    assert facts["labels"].dtype == facts["ids"].dtype == torch.int64 and len(facts["ids"]) == 32
    each = F.kl_div(facts["own"].log_softmax(-1), facts["signal"].softmax(-1), reduction="none").sum(-1)
    assert torch.allclose(facts["losses"], each, atol=1e-6)


def test_rows_that_are_not_compared_are_not_chosen(mesh: Any, start: Any) -> None:
    """The agent knows two of three classes: rows of the third have a loss of 0, which is not the smallest one."""
    made = mesh({"s": {"labels": ["0", "1"]}}, train={"epochs": 2, "batch_size": 30})
    made.flow("labels", "s", objective="ce", gate={"small_loss": {"forget": 0.6, "epochs": 1}})
    begun = start(made)
    module, data = begun.modules["s"], begun.batches(2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    for step, at in enumerate(data):
        at = at[begun.y[at] < 2]
        losses = F.cross_entropy(module(begun.x[at]), begun.y[at], reduction="none")
        few = losses.sort().values[: int(len(at) * (1 if step < 3 else 0.4))]
        optimizer.zero_grad()
        (few.mean() * len(at) / 30).backward()
        optimizer.step()
    result = made.run(backend="inline")
    for ours, theirs in zip(result["s"].module.parameters(), module.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_gate_is_told_which_rows_are_compared(mesh: Any) -> None:
    found = []
    for labels in ({"labels": ["0", "2"]}, {}):
        made = mesh({"s": labels}, train={"steps": 1})
        made.flow("labels", "s", objective="ce", gate="compared")
        made.run(backend="inline")
        found.append(SEEN[-1])
    assert torch.equal(found[0]["counted"], found[0]["losses"] != 0)
    assert 0 < found[0]["counted"].sum() < 32 and found[1]["counted"].all()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_shut_flows_stop_their_agent_where_updates_are_joined(mesh: Any, opened: Any, accumulate: int) -> None:
    """t -> s passes gradients to t: while it is shut t learns from its labels, and s from nothing."""
    train = {"steps": 8, "schedule": "cosine", "accumulate": accumulate}
    made = mesh({"t": {}, "s": {}, "e": {"update": {"ema": {"of": "s"}}}}, train=train)
    made.flow("labels", "t", objective="ce", gate=listed(0, 1, 2, 3, 6, 7))
    made.flow("t", "s", objective="kl", refresh="step", detach=False, gate=listed(4, 5, 6, 7))
    _, hosts = opened(made)
    (host,) = hosts.values()
    (stage,) = (one.name for one in host.plan.stages if one.weights)
    host.start(stage, {"t": 8, "s": 8})
    host.begin(stage, "main", {"t": 8, "s": 8, "e": 8}, 0, {})
    before = host.weights["s"].sha256(), host.weights["e"].sha256(), host.weights["s"].progress()[0]
    host.run(whole("host0", stage, 0, 4)[0])
    assert (host.weights["s"].sha256(), host.weights["e"].sha256(), host.weights["s"].progress()[0]) == before
    assert host.weights["t"].updates == 4 // accumulate
    one = host.weights["t"].sha256()
    host.run(whole("host0", stage, 4, 6)[0])
    assert host.weights["t"].sha256() != one, "the loss of s reaches t"
    host.run(whole("host0", stage, 6, 8)[0])
    assert [host.weights[name].updates for name in "tse"] == [8 // accumulate] + [4 // accumulate] * 2


def test_a_gate_of_an_update_looks_at_the_batch_of_its_agent(mesh: Any) -> None:
    """Weights with a view, whose flow stands first: the agent and the one it looks at answer the same samples."""
    agents = {"a": {"gate": {"of": {"of": "b"}}}, "x": {"weights_of": "a"}}
    agents["b"] = {"update": "frozen", "model": MODEL}
    made = mesh(agents, train={"epochs": 1})
    made.flow("labels", "x", objective="ce", stream="train")
    made.flow("labels", "a", objective="ce")
    result = made.run(backend="inline")
    x = made.table.x
    for fact in SEEN[-3:]:
        assert torch.allclose(fact["other"], result["b"].module(x[fact["ids"]]), atol=1e-5)


def test_names_of_agents_are_no_numbers_of_flows(mesh: Any, opened: Any) -> None:
    made = mesh({"0": {"gate": listed(0, 1, 2)}}, train={"steps": 3})
    made.flow("labels", "0", objective="ce", gate=listed(0))
    _, hosts = opened(made)
    (host,) = hosts.values()
    host.start("0", {"0": 3})
    host.begin("0", "main", {"0": 3}, 0, {})
    host.run(whole("host0", "0", 0, 3)[0])
    part, told = host.save("0", None), dict(host.gated)
    host.gated.clear()
    host.load("0", part)
    assert host.gated == told and {key: (one.asked, one.shut) for key, one in told.items()} == {
        ("update", "0"): (3, 0),
        ("flow", 0): (3, 2),
    }


def test_losses_of_rows_count_no_call_of_the_objective(mesh: Any) -> None:
    found = []
    for gate in (None, "compared"):
        made = mesh(["s"], train={"steps": 4})
        made.flow("labels", "s", objective="counts", gate=gate)
        found.append(made.run(backend="inline").summary["agents"]["s"]["objectives"])
    assert found[0] == found[1] and "4.0" in str(found[0])


def test_what_a_gate_draws_depends_on_no_objective(mesh: Any) -> None:
    found = []
    for gate in ("draws", "draws_of_losses"):
        made = mesh(["s"], train={"steps": 2})
        made.flow("labels", "s", objective="counts", gate=gate)
        made.run(backend="inline")
        found.append([fact["drawn"] for fact in SEEN[-2:]])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_only_steps_in_which_it_was_asked_are_counted(mesh: Any) -> None:
    """Flows are not asked while their agent's gate is shut."""
    made = mesh({"s": {"gate": listed(0, 1, 2)}}, train={"epochs": 3})
    made.flow("labels", "s", objective="ce", gate="timed")
    said = made.run(backend="inline").summary["agents"]["s"]["gates"]
    assert (said["update"]["asked"], said["update"]["shut"]) == (9, 6)
    assert said["labels -> s"] == {"gate": "timed", "asked": 3, "shut": 0, "kept": 1.0}


def test_while_nothing_is_known_of_whom_it_looks_at_it_is_shut_and_not_asked(
    mesh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = gates.OpenOrShut.looked
    known = lambda self, context: inner(self, context) if context.step >= 2 else None  # noqa: E731
    monkeypatch.setattr(gates.OpenOrShut, "looked", known)
    made = mesh({"t": {"update": "frozen", "model": MODEL}, "s": {"gate": {"of": {"of": "t"}}}}, train={"steps": 5})
    made.flow("labels", "s", objective="ce")
    agent = made.run(backend="inline").summary["agents"]["s"]
    assert agent["gates"] == {"update": {"gate": "of", "asked": 3, "shut": 0, "kept": 1.0}} and agent["updates"] == 3


def test_agreement_is_that_of_the_consensus_it_has_to_do_with(mesh: Any) -> None:
    who = ["a", "b", "c", "d"]
    lines = [{"train": who, "epochs": 1}, {"publish": ["a", "b"]}, {"publish": ["c", "d"]}]
    agents = {"a": {"gate": "agreeing"}, "b": {}, "c": {"gate": "agreeing"}, "d": {"model": {"mlp": {"hidden": [64]}}}}
    made = mesh(agents, train={"batch_size": 90}, program=[{"of": who, "repeat": 3, "do": lines}])
    made.flow("labels", who, objective="ce")
    for name, two, readers in (("x", ["a", "b"], ["a", "b", "d"]), ("y", ["c", "d"], ["c", "d"])):
        made.consensus(name, "mean")
        made.flow(two, name, refresh="round")
        made.flow(name, readers, objective="kl")
    found: list[dict[str, Any]] = []
    inner = Rounds.after

    def after(self: Any, number: int) -> Any:
        found.append({name: figures["agreement"] for name, figures in self.heard.items()})
        assert self.agreements == {"a": found[-1]["x"], "b": found[-1]["x"]} | dict.fromkeys("cd", found[-1]["y"])
        return (yield from inner(self, number))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rounds, "after", after)
        made.run(backend="inline")
    told = [fact["agreement"] for fact in SEEN[-6:]]
    assert told[:2] == [None, None] and found[0]["x"] != found[0]["y"]
    assert sorted(told[2:4]) == sorted(found[0].values()) and sorted(told[4:]) == sorted(found[1].values())


ROUNDS = [{"of": ["a", "b"], "repeat": 2, "do": [{"train": ["a", "b"], "epochs": 1}, {"publish": ["a", "b"]}]}]


def test_what_a_gate_is_told_of_the_training(mesh: Any) -> None:
    made = mesh({"a": {"gate": "told"}, "b": {}}, train={"batch_size": 45}, program=ROUNDS)
    made.flow("labels", ["a", "b"], objective="ce")
    made.consensus("c", "mean")
    made.flow(["a", "b"], "c", refresh="round")
    made.flow("c", ["a", "b"], objective="kl")
    summary = made.run(backend="inline").summary
    facts = SEEN[-4:]
    assert [(fact["step"], fact["epoch"], fact["round"]) for fact in facts] == [
        (0, 0, 1),
        (1, 0, 1),
        (2, 1, 2),
        (3, 1, 2),
    ]
    assert [fact["agreement"] for fact in facts] == [None, None] + [summary["rounds"][0]["metrics"]["agreement"]] * 2
    assert (
        facts[0]["metrics"] == {}
        and facts[2]["metrics"]["accuracy"] == summary["rounds"][0]["metrics"]["accuracy"]["a"]
    )


def dated() -> list[tuple[Any, ...]]:
    return [tuple(fact[name] for name in DATED if name != "metrics") for fact in SEEN]


def test_a_gate_is_told_when_its_agent_was_measured(mesh: Any) -> None:
    made = mesh({"a": {"gate": "dated"}}, train={"batch_size": 45, "epochs": 5, "evaluate_every": 2})
    made.flow("labels", "a", objective="ce")
    made.run(backend="inline")
    del SEEN[:-10]
    assert dated() == [(s, s // 2, None, None, None) for s in range(4)] + [
        *[(s, s // 2, 4, 2, s - 4) for s in range(4, 8)],
        *[(s, s // 2, 8, 4, s - 8) for s in range(8, 10)],
    ]
    assert [fact["metrics"] != {} for fact in SEEN] == [False] * 4 + [True] * 6
    assert SEEN[4]["metrics"] == SEEN[7]["metrics"] != SEEN[8]["metrics"]


def test_lessons_have_steps_of_their_own(mesh: Any) -> None:
    """After a lesson of two epochs a round is measured: of the other lesson nothing, or three steps, were done."""
    lines = [{"lesson": "own", "epochs": 2}, {"lesson": "peers", "steps": 3}]
    program = [{"of": ["a", "b"], "repeat": 2, "do": [*lines, {"publish": ["a", "b"]}]}]
    made = mesh({"a": {"gate": "dated"}, "b": {}}, train={"batch_size": 45}, program=program)
    made.flow("labels", ["a", "b"], objective="ce", lesson="own")
    made.flow("a", "b", objective="kl", refresh="round")
    made.flow("b", "a", objective="kl", refresh="round")
    made.run(backend="inline")
    del SEEN[:-14]
    assert dated()[:7] == [(step, step // 2, None, None, None) for step in (0, 1, 2, 3, 0, 1, 2)]
    assert dated()[7:11] == [(step, step // 2, 4, 2, step - 4) for step in range(4, 8)]
    assert dated()[11:] == [(step, step // 2, 3, 1, step - 3) for step in range(3, 6)]


def test_objectives_are_told_how_far_the_training_is(mesh: Any) -> None:
    made = mesh(["a", "b"], train={"batch_size": 45}, program=ROUNDS)
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("b", "a", objective="when", refresh="step")
    made.flow("a", "b", objective="kl", refresh="round")
    made.run(backend="inline")
    plain = [{"step": step, "epoch": step // 2, "round": step // 2 + 1} for step in range(4)]
    assert SEEN[-4:] == plain and all(type(value) is int for value in SEEN[-1].values())


def test_curves_count_a_skipped_step_as_no_loss(mesh: Any, tmp_path: Path) -> None:
    """In the second of two epochs only the first batch teaches: the point at its end is that batch's loss."""
    made = mesh(["s"], train={"epochs": 2, "batch_size": 45})
    made.flow("labels", "s", objective="ce", gate=listed(0, 1, 2))
    made.flow("s", "s", objective="mse", refresh="step", gate=listed(0))
    run(made, out=tmp_path)
    (folder,) = tmp_path.glob("*/*")
    points = [event for event in Log.read(folder / LOG).events if isinstance(event, Trained)]
    assert [set(point.flows["s"]) for point in points] == [{"labels -> s", "s -> s"}, {"labels -> s"}]


# -- where agents live, and breaks -----------------------------------------------------


def switched(mesh: Any, placement: Any) -> kdmesh.Mesh:
    made = mesh({"t": {"gate": {"gap": {"of": "s", "temperature": 0.1}}}, "s": {}}, placement=placement)
    made.connect("mutual", peers=["t", "s"])
    return made


def taught_together(mesh: Any, placement: Any) -> kdmesh.Mesh:
    made = mesh(["a", "b"], placement=placement)
    for name, other in (("a", "b"), ("b", "a")):
        made.flow("labels", name, objective="ce", gate={"small_loss": {"of": other, "forget": 0.5, "epochs": 2}})
    return made


def stored(mesh: Any, placement: Any) -> kdmesh.Mesh:
    """One that looks at a teacher which is done; and one that is published now and then."""
    made = mesh({"t": {"train": {"epochs": 1}}, "a": {}, "b": {}}, placement=placement)
    made.flow("labels", "t", objective="ce")
    made.flow("labels", ["a", "b"], objective="ce", gate={"small_loss": {"of": "t", "forget": 0.5, "epochs": 2}})
    made.flow("a", "b", objective="kl", refresh="2 steps", gate={"confident": {"start": 0.5, "epochs": 2}})
    return made


def measured(mesh: Any, placement: Any) -> kdmesh.Mesh:
    """States, random numbers, and what was measured."""
    train = {"evaluate_every": 1, "accumulate": 2}
    made = mesh({"a": {"gate": "moody", "train": train}, "b": {"train": train}}, placement=placement)
    made.flow("labels", ["a", "b"], objective="ce", gate="better")
    made.flow(["a", "b"], ["a", "b"], objective="kl", refresh="step", gate="moody")
    return made


def freshly(mesh: Any, placement: str) -> kdmesh.Mesh:
    """Gates that go by how long ago their agents were measured, in two lessons of rounds."""
    lines = [{"lesson": "own", "epochs": 2}, {"lesson": "peers", "steps": 3}, {"publish": ["a", "b"]}]
    program = [{"of": ["a", "b"], "repeat": 2, "do": lines}]
    agents = {"a": {"gate": "fresh"}, "b": {"train": {"evaluate_every": 1}}}
    made = mesh(agents, train={"batch_size": 32}, program=program, placement=placement)
    made.flow("labels", ["a", "b"], objective="ce", lesson="own")
    for one, other in (("a", "b"), ("b", "a")):
        made.flow(one, other, objective="kl", refresh="round", **({"gate": "fresh"} if other == "b" else {}))
    return made


MADE = [switched, taught_together, stored, measured, freshly]


@pytest.mark.parametrize("make", MADE)
def test_spread_over_hosts_and_broken_off_it_is_the_same(
    make: Callable[..., kdmesh.Mesh], mesh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, inner = [0, 0], InlineBackend.call

    def call(self: Any, *args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == calls[1]:
            raise KeyboardInterrupt
        return inner(self, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    whole = run(make(mesh, "together"), out=tmp_path / "whole", checkpoint_seconds=0)
    every = [gate for agent in whole["agents"].values() for gate in agent.get("gates", {}).values()]
    assert any(0 < gate["kept"] < 1 for gate in every), "or nothing is shut"
    assert told(run(make(mesh, "spread"))) == told(whole)
    calls[:] = [0, 0]
    run(make(mesh, "spread"), out=tmp_path / "spread", checkpoint_seconds=0)
    calls[:] = [0, 3 * calls[0] // 5]
    with suppress(KeyboardInterrupt):
        run(make(mesh, "spread"), out=tmp_path / "broken", checkpoint_seconds=0)
    (folder,) = (tmp_path / "broken").glob("*/*")
    assert not (folder / "summary.json").exists()
    calls[:] = [0, 0]
    torch.manual_seed(3)
    assert told(run(make(mesh, "spread"), resume=folder)) == told(whole)


def test_taken_back_to_its_beginning_nothing_is_counted_twice(mesh: Any, opened: Any) -> None:
    made = mesh({"s": {"gate": "moody", "train": {"evaluate_every": 1}}}, train={"steps": 8})
    made.flow("labels", "s", objective="ce", gate="better")
    _, hosts = opened(made)
    (host,) = hosts.values()
    host.start("s", {"s": 8})
    part, found = host.save("s", None), []
    for _ in range(2):
        host.load("s", part)
        assert host.figures == {}
        host.begin("s", "main", {"s": 8}, 0, {})
        host.run(whole("host0", "s", 0, 8)[0])
        found.append(
            (dict(host.gated), host.weights["s"].sha256(), host.gates["update", "s"].state_dict()["count"].item())
        )
        host.evaluate("s", "validation")
        assert host.figures["s"]
    assert found[0] == found[1] and found[0][0]["update", "s"].asked == found[0][2] == 8


FILE = """
import kdmesh
from kdmesh.offers import GateOffer

@kdmesh.hookimpl
def kdmesh_gates():
    return [GateOffer("drawn", "gate_file:make", needs=("own", "epoch"))]

def make():
    import torch
    from kdmesh.gates import Gate

    class Drawn(Gate):
        def setup(self, outputs):
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))

        def forward(self, *, own, epoch):
            self.count += 1
            return bool(self.count % 3) and bool(torch.rand(()) < 0.5)

    return Drawn()
"""


@pytest.mark.ray
def test_the_same_on_ray(mesh: Any, ray_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gate_file.py").write_text(FILE)
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(tmp_path))
    two = {"one": ["t"], "two": ["s"]}
    found = []
    for session, placement in ((Session("inline"), "together"), (ray_session, two)):
        made = switched(mesh, placement)
        made.flow("t", "s", objective="mse", refresh="step", gate="drawn")
        made.flow("labels", "s", objective="ce", stream="train", gate={"small_loss": {"of": "t", "forget": 0.5}})
        found.append(told(run_once(Request(parse(made._fields), table=made.table), session=session)[0]))
    assert found[0] == found[1]
    assert 0 < found[0]["s"][3]["t -> s: mse on train"]["kept"] < 1


# -- what is refused ------------------------------------------------------------------

LABELS = {"from": "labels", "to": ["t", "s"], "objective": "ce"}


@pytest.mark.parametrize(
    ("agents", "flows", "said"),
    [
        ({"s": {"gate": "late"}}, [], r"agents.s.gate: unknown gate 'late'"),
        ({"s": {"gate": {"listed": {"opens": [1]}}}}, [], r"agents.s.gate.listed.opens"),
        ({"s": {"gate": "gap"}}, [], r"agents.s.gate: .*none is named.* \{gap: \{of: AGENT\}\}"),
        ({"s": {"gate": {"gap": {"of": "u"}}}}, [], r"agents.s.gate.gap.of: unknown agent 'u'"),
        ({"s": {"gate": {"gap": {"of": "s"}}}}, [], r"its own logits anyway"),
        ({"s": {"gate": {"listed": {"of": "t"}}}}, [], r"`of` has no effect"),
        ({"s": {"gate": "small_loss"}}, [], r"agents.s.gate: .*needs the losses of a flow"),
        ({"s": {"gate": "factors"}}, [], r"weighs the rows of a flow"),
        ({"t": {"update": "frozen", "model": MODEL, "gate": "moody"}}, [], r"agents.t.gate: t is frozen"),
        ({"s": {"gate": "better"}}, [], r"not measured while it trains.* agents.s.train.evaluate_every: 1"),
        ({"s": {"gate": "told"}}, [], r"agents.s.gate: gate 'told' needs `round`.*in no rounds"),
        (
            {},
            [{**LABELS, "gate": "confident"}],
            r"flows.0.gate: .*labels -> t carries labels.* a gate on a flow of",
        ),
        (
            {"s": {"gate": "moody"}, "v": {"weights_of": "s"}},
            [{**LABELS, "stream": "train"}, {**LABELS, "to": "v", "stream": "pub"}],
            r"agents.s.gate: .*the weights of s learn on train and pub in a step",
        ),
        (
            {"s": {"gate": "moody"}, "v": {"weights_of": "s"}},
            [{**LABELS, "to": ["t", "v"]}],
            r"agents.s.gate: .*a batch of s, and flows reach only v",
        ),
        ({}, [LABELS, {"from": "t", "to": "s", "objective": "when"}], r"objective 'when' needs `round`"),
        ({}, [LABELS, {"from": "t", "to": "s", "objective": "remembers", "gate": "halves"}], r"remembers what it com"),
    ],
)
def test_what_it_cannot_have_is_refused(mesh: Any, agents: Any, flows: Any, said: str) -> None:
    made = mesh({"t": {}, "s": {}} | agents, streams={"pub": {"of": "train", "size": 40}})
    for flow in flows or [LABELS if "t" not in agents else {**LABELS, "to": ["s"]}]:
        made._fields["flows"].append(flow)
    with pytest.raises(MeshError, match=f"(?s){said}"):
        check(made)


def test_gradients_that_pass_want_gates_on_flows(mesh: Any) -> None:
    made = mesh({"t": {"gate": "moody"}, "s": {}})
    made.flow("labels", ["t", "s"], objective="ce")
    made.flow("t", "s", objective="kl", detach=False)
    with pytest.raises(MeshError, match=r"agents.t.gate: gradients pass between t and s"):
        check(made)


@pytest.mark.parametrize(
    ("gate", "says", "said"),
    [
        ("wrong", 1, "gave a int, not a bool"),
        ("wrong", torch.ones(3), "not a bool"),
        ("wrong", lambda own: bool(own.zero_().any()), "changes what it is given in place"),
        ("factors", True, r"not factors \[32\]"),
        ("factors", lambda own: -torch.ones(len(own)), "factors from -1 to -1"),
        ("factors", lambda own: torch.full((len(own),), float("nan")), "must be finite"),
        ("factors", lambda own: torch.ones(len(own), dtype=torch.bool), "of floating point"),
    ],
)
def test_what_is_no_decision_is_refused(
    mesh: Any, gate: str, says: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wrong, "says", staticmethod(says) if callable(says) else says)
    made = mesh(["s"])
    made.flow("labels", "s", objective="ce", gate=gate)
    with pytest.raises(MeshError, match=f"(?s)the gate '{gate}' of kdmesh failed .*{said}"):
        check(made)


def test_an_offer_that_needs_what_there_is_not() -> None:
    offer = GateOffer("odd", "odd:Odd", needs=("own", "student"))
    assert "needs with 'student', which there is not" in fault("gates", offer)
    assert "agreement" in fault("gates", offer)
    other = ObjectiveOffer("odd", "odd:Odd", needs=("labels", "time"))
    assert "needs with 'time', which there is not" in fault("objectives", other)


def test_the_long_form_keeps_gates(mesh: Any, hashes: Any) -> None:
    made = taught_together(mesh, "together")
    plan = made.plan()
    assert [edge.as_ for edge in plan.edges] == ["target", "target", "gate", "gate"]
    again = plan.resolved()
    assert [json.loads(flow.gate.model_dump_json()) for flow in again.flows if flow.gate] == [
        {"small_loss": {"of": other, "forget": 0.5, "epochs": 2}} for other in "ba"
    ]
    summary, _, _ = run_once(Request(again, "inline", table=made.table))
    assert {name: agent["weights_sha256"] for name, agent in summary["agents"].items()} == hashes(made)


# -- what is said of them, and what costs nothing -------------------------------------------------------------------


def test_a_gate_that_was_never_open_is_named(mesh: Any) -> None:
    made = mesh({"t": {}, "s": {"gate": listed()}})
    made.flow("labels", ["t", "s"], objective="ce")
    made.flow("s", "t", objective="kl", refresh="step", gate=listed())
    summary = made.run(backend="inline").summary
    assert {
        "s: the gate listed was shut in all 9 steps, so s was never updated",
        "t: the gate listed was shut in all 9 steps, so s -> t taught nothing",
    } <= set(summary["notes"])
    assert summary["agents"]["s"]["updates"] == 0


def test_a_gate_that_was_never_asked_is_named() -> None:
    never, shut = {"gate": "g", "asked": 0, "shut": 0}, {"gate": "h", "asked": 3, "shut": 3}
    described = {"a": {"updates": 0, "gates": {"update": never}}, "b": {"updates": 4, "gates": {"t -> b": never}}}
    described["c"] = {"updates": 0, "gates": {"t -> c": never, "update": shut}}
    assert notes.always_shut(described) == [
        "a: the gate g was never asked, so a was never updated",
        "b: the gate g was never asked, so t -> b taught nothing",
        "c: the gate h was shut in all 3 steps, so c was never updated",
    ]


def test_controls_go_without_gates_that_look_at_who_is_left_out(mesh: Any, tmp_path: Path) -> None:
    small = {"small_loss": {"of": "u", "forget": 0.5}}
    made = mesh({"t": {"train": {"epochs": 1}}, "u": {"train": {"epochs": 1}}, "s": {"gate": {"gap": {"of": "u"}}}})
    made.flow("labels", ["t", "u"], objective="ce")
    made.flow("t", "s", objective="kl", gate={"small_loss": {"of": "t"}})
    made.flow("u", "s", objective="kl", gate=small)
    plan = made.plan()
    alone, best = controls.alone(plan, "s", 5), controls.from_best(plan, "s", "t", tmp_path)
    assert best is not None
    assert alone.agents["s"].gate is best.agents["s"].gate is best.agents["t"].gate is None
    assert [flow.gate and flow.gate.of for flow in best.flows] == ["t"]
    for spec in (alone, best):
        assert make_plan(spec, registry()).spec.agents.keys() >= {"s"}


def test_controls_of_agents_with_gates_are_made(mesh: Any, tmp_path: Path) -> None:
    made = switched(mesh, "together")
    summary = made.run(backend="inline", out=tmp_path, controls=True).summary
    assert {name: set(found) for name, found in summary["controls"].items()} == {"t": {"alone"}, "s": {"alone"}}


def test_where_there_is_no_gate_nothing_is_asked(mesh: Any, opened: Any) -> None:
    """The update is the plain one, and its terms are too: a gate elsewhere costs an agent without one nothing."""
    made = mesh({"s": {}, "t": {"gate": listed(0)}}, train={"steps": 2})
    made.flow("labels", ["s", "t"], objective="ce")
    _, hosts = opened(made)
    (host,) = hosts.values()
    found = {}
    for name in ("s", "t"):
        host.start(name, {name: 2})
        host.begin(name, "main", {name: 2}, 0, {})
        found[name] = host._phases[name].ops[Op("u", name)].__qualname__.rpartition(".")[2]
    assert found == {"s": "loss_and_gradient", "t": "whether"}


def test_plans_and_drawings_show_gates(mesh: Any) -> None:
    made = taught_together(mesh, "together")
    text = plan_text(made.plan())
    assert "as gate" in text and "gate small_loss(of b, forget 0.5, epochs 2)" in " ".join(text.split())
    told = plan_json(switched(mesh, "together").plan())
    assert (
        told["agents"]["t"]["gate"] == {"gap": {"of": "s", "temperature": 0.1}} and told["agents"]["s"]["gate"] is None
    )
    assert "as gate" in made.draw() and "gate small_loss" in made.draw()
    assert "gate gap" in switched(mesh, "together").draw()


@pytest.mark.parametrize("gate", ["better", "fresh"])
def test_metrics_want_a_validation_split(gate: str) -> None:
    made = kdmesh.Mesh(data={"dataset": "digits", "validation": 0, "train": 64}, program=ROUNDS)
    made.agent("a", MODEL, gate=gate)
    made.agent("b", MODEL)
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("b", "a", objective="kl", refresh="round")
    made.flow("a", "b", objective="kl", refresh="round")
    with pytest.raises(MeshError, match=r"(?s)agents.a.gate: .*reads metrics of a on validation"):
        check(made)


def test_the_schema_knows_of() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    fields: dict[str, Any] = {"data": "digits", "agents": {"a": {"model": "mlp"}, "b": {"model": "mlp"}}}
    fields["flows"] = [{"from": "labels", "to": "a", "objective": "ce", "gate": {"small_loss": {"of": "b"}}}]
    assert not [error.message for error in validator.iter_errors(fields)]
    fields["flows"][0]["gate"] = {"small_loss": {"off": "b"}}
    assert [*validator.iter_errors(fields)]
    with pytest.raises(MeshError, match=r"flows.0.gate.small_loss.off"):
        make_plan(parse(fields), registry())
