"""What plugins do beside giving values: gradients that lead nowhere, switches they leave, states, wishes to exit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kdmesh
from kdmesh.consensus import Rule
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError, RunFailed
from kdmesh.gates import Gate
from kdmesh.hosts import guard
from kdmesh.metrics import Metric
from kdmesh.objectives import Objective
from kdmesh.offers import (
    Config,
    ConsensusOffer,
    GateOffer,
    MetricOffer,
    ModelOffer,
    ObjectiveOffer,
    SignalOffer,
    StrategyOffer,
    TaskOffer,
)
from kdmesh.plugins import PluginRecord, registry
from kdmesh.strategies import Strategy
from kdmesh.tasks import Task


class What(Config):
    """What it does."""

    what: str = ""


class Unsayable(Exception):
    """It has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Loss(Objective):
    """A mean square, and something else."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.calls = what, 0

    def setup(self, student: torch.Size, target: torch.Size, **facts: Any) -> None:
        self.adapter = nn.Linear(3, 3)
        if self.what == "default when set up":
            torch.set_default_dtype(torch.float64)

    def state_dict(self, *args: Any, **more: Any) -> Any:
        if self.what == "state raises":
            raise OSError("no state")
        return [1] if self.what == "state as a list" else super().state_dict(*args, **more)

    def load_state_dict(self, *args: Any, **more: Any) -> Any:
        if self.what == "restores nothing":
            raise RuntimeError("no such state")
        return super().load_state_dict(*args, **more)

    def forward(self, student: Tensor, target: Tensor, *, form: str = "logits", weights: Tensor | None = None) -> Any:
        self.calls += 1
        loss: Tensor = (student - target).square().mean()
        match self.what:
            case "a leaf of its own":
                return loss.detach().requires_grad_()
            case "its adapter alone":
                return (student.detach() - self.adapter(target)).square().mean()
            case "its adapter":
                return (student - self.adapter(target)).square().mean()
            case "a function of its own":
                return _Twice.apply(loss)
            case "sparse":
                return torch.sparse_coo_tensor(torch.zeros(0, 1, dtype=torch.long), loss[None], ())
            case "double":
                return loss.double()
            case "a subclass":
                return loss.as_subclass(_Marked)
            case "writes by data":
                target.data.zero_()
            case "writes by numpy":
                target.numpy()[:] = 0
            case "no gradients any more":
                torch.set_grad_enabled(False)
            case "another default":
                torch.set_default_dtype(torch.float64)
            case "exits":
                sys.exit(0)
            case "exits late":
                sys.exit(0) if self.calls > 5 else None
            case "unsayable":
                raise Unsayable
            case "says much":
                raise ValueError("x" * 100_000)
            case "an odd gradient":
                student.register_hook(lambda gradient: gradient * (float("nan") if self.calls > 5 else 1))
        return loss


class _Twice(torch.autograd.Function):
    """A loss by a function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return 2 * loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * gradient


class _Marked(Tensor):
    """A subclass, as of who keeps units with numbers."""


class Mean(Rule):
    """The mean of sources, but for something."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.register_buffer("count", torch.zeros(()), persistent=what != "counts for itself")

    def weights(self, logits: Tensor, **given: Any) -> Tensor:
        return torch.full(logits.shape[:2], {"1.6": 0.8, "0": 0.0}.get(self.what, 0.5))

    def forward(self, values: Tensor, **given: Any) -> Tensor:
        self.count += self.what.startswith("counts")
        if self.what == "below 0":
            return 1.5 * values[0] - 0.5 * values[1]
        return values.mean(0) * (0.7 if self.what == "0.7" else 1)


class Soft:
    """A softmax, but for something."""

    def __init__(self, what: str) -> None:
        self.what = what
        if what == "is not made":
            raise KeyError("what")

    def __call__(self, value: Tensor) -> Tensor:
        probs = value.softmax(-1)
        return {"sparse": probs.to_sparse, "3": lambda: 3 * probs}.get(self.what, lambda: probs)()


class Net(nn.Module):
    """One layer, and something else."""

    def __init__(self, input_shape: torch.Size, classes: int, what: str) -> None:
        super().__init__()
        self.what, self.layer, self.calls = what, nn.Linear(*input_shape, classes), 0
        if what == "no weights to train":
            self.requires_grad_(False)

    def state_dict(self, *args: Any, **more: Any) -> Any:
        if self.what == "state raises":
            raise OSError("no state")
        return super().state_dict(*args, **more)

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        if self.what == "trains":
            self.train()
        if self.what == "reads a file":
            Path("/nowhere/at/all").read_text()
        value = self.layer(x)
        if self.what == "writes by data" and x.device.type == "cpu":
            x.data.zero_()
        return None if self.what == "nothing at last" and self.calls > 6 else value


class Shares(Gate):
    """Rows by their losses."""

    def forward(self, *, losses: Tensor) -> Tensor:
        return torch.ones_like(losses)


class Figure(Metric):
    """A figure that is none."""

    def __init__(self, what: str) -> None:
        self.what = what
        if what == "is not made":
            raise KeyError("what")

    def update(self, answers: Any) -> None:
        """Nothing is kept."""

    def compute(self) -> Any:
        return {"huge": 10**400, "nan": float("nan")}.get(self.what, 1.0)


class Odd(Task):
    """Classes, but for one answer."""

    def __init__(self, what: str) -> None:
        self.what = what

    def decide(self, scores: Tensor) -> Tensor:
        return scores.argmax(1) + (100 if self.what == "beyond" else 0)

    def chance(self, labels: Tensor) -> Any:
        return 0.3 if self.what == "chance" else None


class Draws(Strategy):
    """A flow, and something else."""

    def __init__(self, what: str) -> None:
        self.what = what

    def draw(self, canvas: Any) -> None:
        if self.what == "exits":
            sys.exit(0)
        canvas.flow("a", "b", objective="kl", weight=float("nan"))


OFFERS = (
    ObjectiveOffer("loss", f"{__name__}:Loss", What),
    ConsensusOffer("average", f"{__name__}:Mean", What, spaces=("probs", "loss")),
    SignalOffer("soft", f"{__name__}:Soft", What),
    ModelOffer("net", f"{__name__}:Net", What),
    GateOffer("shares", f"{__name__}:Shares", needs=("losses",), rows=True),
    MetricOffer("figure", f"{__name__}:Figure", What),
    TaskOffer("odd", f"{__name__}:Odd", What),
    StrategyOffer("draws", f"{__name__}:Draws", What),
)


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that offers them."""
    record = PluginRecord("odd", "kdmesh-odd", "2", claims={(offer.kind, offer.name): offer for offer in OFFERS})
    for offer in OFFERS:
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)
    monkeypatch.setattr(registry(), "records", [*registry().records, record])


def pair(mesh: Any, **flow: Any) -> Any:
    """Two peers, of which one learns from the other."""
    made = mesh("ab", train={"steps": 8})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", **{"objective": "kl", "refresh": "step", **flow})
    return made


def council(mesh: Any, what: str, refresh: str = "step", **more: Any) -> Any:
    """A student of a consensus of two."""
    made = mesh("abs", train={"steps": 4})
    made.flow("labels", ["a", "b"], objective="ce")
    made.consensus("c", {"average": {"what": what}}, **more)
    made.flow(["a", "b"], "c", refresh=refresh)
    made.flow("c", "s", objective="kl")
    return made


def alone(mesh: Any, agent: dict[str, Any], **fields: Any) -> Any:
    """One agent that learns from labels."""
    made = mesh({"a": agent}, train={"steps": 4}, **fields)
    made.flow("labels", "a", objective="ce")
    return made


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a leaf of its own", "compute at step 0 .*whose gradient does not reach the signal"),
        ("its adapter alone", "compute at step 0 .*whose gradient does not reach the signal"),
        ("sparse", "compute at step 0 .*it gave .*torch.sparse_coo, not a loss"),
        ("writes by data", "compute at step 0 .*changes `target`"),
        ("writes by numpy", "compute at step 0 .*changes `target`"),
        ("no gradients any more", r"compute at step 0 .*torch\.set_grad_enabled\(False\)"),
        ("another default", r"compute at step 0 .*torch\.set_default_dtype\(torch.float64\)"),
        ("default when set up", r"set up .*torch\.set_default_dtype\(torch.float64\)"),
        ("exits", r"compute at step 0 .*SystemExit: 0 \(test_what_plugins_do.py, line"),
        ("exits late", r"compute at step 5 .*SystemExit: 0"),
        ("unsayable", r"compute at step 0 .*Unsayable: \(its text cannot be made: ValueError\)"),
        ("state raises", "kept in a checkpoint: OSError: no state"),
        ("state as a list", "kept in a checkpoint: AttributeError"),
        ("restores nothing", "restored from a checkpoint: RuntimeError: no such state"),
    ],
)
def test_an_objective_that_does_what_it_may_not_is_named(mesh: Any, what: str, said: str) -> None:
    before = torch.is_grad_enabled(), torch.get_default_dtype()
    with pytest.raises(RunFailed, match=rf"the objective 'loss' of kdmesh-odd 2 failed to (be )?{said}"):
        pair(mesh, objective={"loss": {"what": what}}).run(backend="inline")
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == before


@pytest.mark.parametrize("what", ["double", "a subclass", "its adapter", "a function of its own"])
def test_a_loss_that_is_only_unusual_trains(mesh: Any, what: str) -> None:
    assert pair(mesh, objective={"loss": {"what": what}}).run(backend="inline").summary["agents"]


def test_what_is_said_at_length_is_cut(mesh: Any) -> None:
    with pytest.raises(RunFailed, match=r"ValueError: x+ \.\.\. \(100,000 characters\)") as raised:
        pair(mesh, objective={"loss": {"what": "says much"}}).run(backend="inline")
    assert len(str(raised.value)) < 1200


def test_gradients_that_spoil_weights_are_told_with_whose_they_may_be(mesh: Any) -> None:
    said = r"loss became nan at step 6 .*by gradients before it, perhaps of the objective 'loss' of kdmesh-odd 2"
    with pytest.raises(MeshError, match=said):
        pair(mesh, objective={"loss": {"what": "an odd gradient"}}).run(backend="inline")


def test_an_objective_that_ignores_weights_has_no_losses_for_a_gate(mesh: Any) -> None:
    with pytest.raises(RunFailed, match=r"objective 'loss' of kdmesh-odd 2 .*does not depend on `weights`"):
        pair(mesh, objective="loss", gate="shares").run(backend="inline")


@pytest.mark.parametrize("refresh", ["step", "epoch"])
@pytest.mark.parametrize(("what", "off"), [("0.7", "0.3"), ("below 0", "0|.*e-0")])
def test_a_rule_that_gives_no_distribution_is_named(mesh: Any, what: str, off: str, refresh: str) -> None:
    with pytest.raises(RunFailed, match=rf"rule 'average' of kdmesh-odd 2 .*no distribution: .*off from 1 by ({off})"):
        council(mesh, what, refresh).run(backend="inline")


@pytest.mark.parametrize("what", ["1.6", "0"])
def test_weights_that_do_not_sum_to_1_are_told_with_their_sum(mesh: Any, what: str) -> None:
    with pytest.raises(RunFailed, match=rf"rule 'average' of kdmesh-odd 2 .*weights sum to {what} to {what} "):
        council(mesh, what, space="loss").run(backend="inline")


def test_a_state_that_moves_is_declared_or_of_no_checkpoint(mesh: Any) -> None:
    with pytest.raises(MeshError, match=r"the state of the consensus rule 'average' of kdmesh-odd 2 moves \(count\)"):
        council(mesh, "counts").run(backend="inline")
    assert council(mesh, "counts for itself").run(backend="inline").summary["agents"]


@pytest.mark.parametrize(
    ("what", "said"), [("3", "off from 1 by 2"), ("sparse", "sparse_coo"), ("is not made", "KeyError")]
)
def test_a_signal_that_is_not_what_it_says_is_named(mesh: Any, what: str, said: str) -> None:
    with pytest.raises(RunFailed, match=rf"the kind of signal 'soft' of kdmesh-odd 2 failed .*{said}"):
        pair(mesh, signal={"soft": {"what": what}}).run(backend="inline")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("trains", "failed to answer .*leaves itself in train mode"),
        ("writes by data", "failed to answer .*changes `x`"),
        ("reads a file", r"cannot forward .*FileNotFoundError: .*\(test_what_plugins_do.py, line"),
        ("no weights to train", "has no weight that requires a gradient"),
        ("state raises", "gives no state: OSError: no state"),
    ],
)
def test_a_model_that_does_what_it_may_not_is_named(mesh: Any, what: str, said: str) -> None:
    with pytest.raises(MeshError, match=rf"the model 'net' of kdmesh-odd 2 {said}"):
        alone(mesh, {"model": {"net": {"what": what}}}).run(backend="inline")


def test_a_frozen_model_is_named_with_its_step(mesh: Any) -> None:
    made = mesh({"t": {"model": {"net": {"what": "nothing at last"}}, "update": "frozen"}, "a": {}}, train={"steps": 8})
    made.flow("labels", "a", objective="ce")
    made.flow("t", "a", objective="kl", refresh="step")
    with pytest.raises(RunFailed, match=r"the model 'net' of kdmesh-odd 2 failed to answer at step \d"):
        made.run(backend="inline")


@pytest.mark.parametrize(("what", "said"), [("is not made", "to be made: KeyError"), ("huge", "number of 1,329 bits")])
def test_a_metric_is_named(mesh: Any, what: str, said: str) -> None:
    with pytest.raises(RunFailed, match=rf"the metric 'figure' of kdmesh-odd 2 failed .*{said}"):
        alone(mesh, {}, metrics=["accuracy", {"figure": {"what": what}}]).run(backend="inline")


def test_a_figure_that_is_nan_of_sound_answers_is_not_defined(mesh: Any) -> None:
    made = alone(mesh, {}, metrics=["accuracy", {"figure": {"what": "nan"}}]).run(backend="inline")
    figures = made.summary["agents"]["a"]["metrics"]["test"]
    assert figures["undefined"] == {"figure": "it gave NaN, of answers that are finite"}
    assert "figure" not in figures


@pytest.mark.parametrize(("what", "said"), [("beyond", "answers from 10. to 10."), ("chance", "gave a float")])
def test_a_task_is_asked_all_that_a_run_asks_before_it(mesh: Any, what: str, said: str) -> None:
    made = alone(mesh, {}, task={"odd": {"what": what}})
    with pytest.raises(RunFailed, match=rf"the task 'odd' of kdmesh-odd 2 failed .*{said}"):
        examine(made.plan(), {}, made.table)


def test_a_strategy_that_exits_or_draws_no_number_is_refused(mesh: Any) -> None:
    agents = {name: {"model": {"mlp": {"hidden": [8]}}} for name in "ab"}
    fields: dict[str, Any] = {"data": "digits", "agents": agents}
    with pytest.raises(RunFailed, match="the strategy 'draws' of kdmesh-odd 2 failed as it drew: SystemExit: 0"):
        kdmesh.Mesh(**fields, connect=[{"draws": {"what": "exits"}}]).plan()
    with pytest.raises(MeshError, match=r"connect\.0\.draws\.weight: found nan"):
        kdmesh.Mesh(**fields, connect=["draws"]).plan()


def test_a_gradient_is_followed_by_its_graph_alone() -> None:
    own = torch.ones(3, requires_grad=True)
    other = own * 2
    assert guard.reaches((own**2).sum(), own)
    assert guard.reaches(other.exp().sum(), other)
    assert not guard.reaches(other.detach().requires_grad_().sum(), other)
    assert own.grad is None
