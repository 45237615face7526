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
from kdmesh.engine import controls
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.gates import Gate
from kdmesh.graph.fragments import whole
from kdmesh.graph.planner import make_plan
from kdmesh.graph.steps import Op
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

    def forward(self, *, student: Tensor, epoch: int) -> bool:
        now = student.abs().mean(0)
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


GATES = [
    GateOffer("listed", f"{HERE}:Listed", Steps, needs=("step",)),
    GateOffer("moody", f"{HERE}:Moody", needs=("student", "epoch")),
    GateOffer("told", f"{HERE}:Told", needs=("step", "epoch", "round", "metrics", "agreement")),
    GateOffer("rows", f"{HERE}:Told", needs=("student", "signal", "losses", "confidence", "labels", "ids")),
    GateOffer("better", f"{HERE}:Better", needs=("metrics", "step")),
    GateOffer("halves", f"{HERE}:Halves", needs=("step", "losses"), rows=True),
    GateOffer("wrong", f"{HERE}:Wrong", needs=("student",)),
    GateOffer("factors", f"{HERE}:Wrong", needs=("student",), rows=True),
]
OBJECTIVES = [
    ObjectiveOffer("when", f"{HERE}:When", forms=("logits",), needs=("step", "epoch", "round")),
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
    assert facts.keys() == {"student", "signal", "losses", "confidence", "labels", "ids"}
    assert not any(fact.requires_grad for fact in facts.values())
    assert torch.equal(facts["confidence"], facts["signal"].softmax(-1).amax(-1))
    assert facts["labels"].dtype == facts["ids"].dtype == torch.int64 and len(facts["ids"]) == 32
    each = F.kl_div(facts["student"].log_softmax(-1), facts["signal"].softmax(-1), reduction="none").sum(-1)
    assert torch.allclose(facts["losses"], each, atol=1e-6)


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


MADE = [switched, taught_together, stored, measured]


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
    gates = [gate for agent in whole["agents"].values() for gate in agent.get("gates", {}).values()]
    assert any(0 < gate["kept"] < 1 for gate in gates), "or nothing is shut"
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
        found.append((dict(host.gated), host.weights["s"].sha256(), host.gates["s"].state_dict()["count"].item()))
        host.evaluate("s", "validation")
        assert host.figures["s"]
    assert found[0] == found[1] and found[0][0]["s"].asked == found[0][2] == 8


FILE = """
import kdmesh
from kdmesh.offers import GateOffer

@kdmesh.hookimpl
def kdmesh_gates():
    return [GateOffer("drawn", "gate_file:make", needs=("student", "epoch"))]

def make():
    import torch
    from kdmesh.gates import Gate

    class Drawn(Gate):
        def setup(self, outputs):
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))

        def forward(self, *, student, epoch):
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
        ({}, [LABELS, {"from": "t", "to": "s", "objective": "when"}], r"objective 'when' needs `round`"),
        ({}, [LABELS, {"from": "t", "to": "s", "objective": "remembers", "gate": "halves"}], r"remembers what it com"),
    ],
)
def test_what_it_cannot_have_is_refused(mesh: Any, agents: Any, flows: Any, said: str) -> None:
    made = mesh({"t": {}, "s": {}} | agents)
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
        ("wrong", lambda student: bool(student.zero_().any()), "changes what it is given in place"),
        ("factors", True, r"not factors \[32\]"),
        ("factors", lambda student: -torch.ones(len(student)), "factors from -1 to -1"),
        ("factors", lambda student: torch.full((len(student),), float("nan")), "must be finite"),
        ("factors", lambda student: torch.ones(len(student), dtype=torch.bool), "of floating point"),
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
    offer = GateOffer("odd", "odd:Odd", needs=("student", "teacher"))
    assert "needs with 'teacher', which there is not" in fault("gates", offer)
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


def test_metrics_want_a_validation_split() -> None:
    made = kdmesh.Mesh(data={"dataset": "digits", "validation": 0, "train": 64}, program=ROUNDS)
    made.agent("a", MODEL, gate="better")
    made.agent("b", MODEL)
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("b", "a", objective="kl", refresh="round")
    made.flow("a", "b", objective="kl", refresh="round")
    with pytest.raises(MeshError, match=r"(?s)agents.a.gate: .*'better' reads metrics of a on validation"):
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
