"""Gradients through targets, trained and stateful rules, and consensus in the spaces `loss` and `gradient`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdmesh.contracts.rule import Rule, weighted_sum
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.offers import ConsensusOffer
from kdmesh.plugins import registry


class Gate(Rule):
    """Trained weights of the sources, the same for every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(2))

    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        return self.scores.softmax(0)[:, None].expand(-1, logits.shape[1])


class Steepest(Rule):
    """The source with the largest gradient has all the say, per sample."""

    def weights(self, logits: Tensor, **given: Any) -> Tensor:
        gradients: Tensor = given["gradients"]
        return F.one_hot(gradients.norm(dim=-1).argmax(0), len(logits)).T.to(logits.dtype)


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin would offer."""
    offered = registry()._offers["consensus"]
    monkeypatch.setitem(offered, "gate", ConsensusOffer("gate", f"{__name__}:Gate", trained=True))
    monkeypatch.setitem(
        offered, "steepest", ConsensusOffer("steepest", f"{__name__}:Steepest", spaces=("gradient", "loss"))
    )


class Double(nn.Linear):
    """A linear layer that computes in float64."""

    def __init__(self) -> None:
        super().__init__(8, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


def kl(student: Tensor, probs: Tensor) -> Tensor:
    log_q = F.log_softmax(student, -1)
    return (torch.special.xlogy(probs, probs) - probs * log_q).sum() / len(student)


def one_step(mesh: Any, names: str, **train: Any) -> Any:
    """A mesh of float64 agents that make one step of plain gradient descent with a rate of 1."""
    made = mesh([], train={"steps": 1, "optimizer": {"sgd": {"lr": 1.0}}, **train})
    for number, name in enumerate(names):
        torch.manual_seed(number)
        made.agent(name, Double())
    return made


def moved(begun: Any, result: Any, name: str) -> list[Tensor]:
    """The gradient that the step followed."""
    pairs = zip(begun.modules[name].parameters(), result[name].module.parameters(), strict=True)
    return [before.detach() - after.detach() for before, after in pairs]


@pytest.mark.parametrize("detach", [True, False])
def test_gradients_reach_the_source_only_where_the_flow_says_so(mesh: Any, start: Any, detach: bool) -> None:
    made = one_step(mesh, "ab")
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("b", "a", objective="kl", refresh="step", detach=detach, weight=2.0)
    begun, result = start(made), made.run(backend="inline")
    at, (a, b) = begun.batches(1)[0], (begun.modules["a"], begun.modules["b"])
    x, y = begun.x[at], begun.y[at]
    target = b(x).softmax(-1)
    loss = F.cross_entropy(a(x), y) + 2 * kl(a(x), target.detach() if detach else target) + F.cross_entropy(b(x), y)
    for name, module in (("a", a), ("b", b)):
        expected = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
        for ours, theirs in zip(moved(begun, result, name), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_readers_of_one_consensus_decide_for_themselves(mesh: Any, start: Any) -> None:
    """Gradients pass through a's reading of the mean into its members, and not through c's."""
    made = one_step(mesh, "abc")
    made.flow("labels", ["a", "b", "c"], objective="ce")
    made.consensus("m", "mean")
    made.flow(["a", "b"], "m", refresh="step", detach=False)
    made.flow("m", "c", objective="kl", weight=3.0)
    made.flow("m", "a", objective="kl", detach=False)
    begun, result = start(made), made.run(backend="inline")
    at, modules = begun.batches(1)[0], begun.modules
    x, y = begun.x[at], begun.y[at]
    mean = (modules["a"](x).softmax(-1) + modules["b"](x).softmax(-1)) / 2
    loss = kl(modules["a"](x), mean) + 3 * kl(modules["c"](x), mean.detach())
    loss = loss + sum(F.cross_entropy(module(x), y) for module in modules.values())
    for name in "abc":
        expected = torch.autograd.grad(loss, list(modules[name].parameters()), retain_graph=True)
        for ours, theirs in zip(moved(begun, result, name), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_gradient_that_is_asked_for_passes_without_a_word_about_refresh(mesh: Any, start: Any) -> None:
    """A trained teacher and its student: one stage, forwarded together, instead of a gradient that goes nowhere."""
    made = one_step(mesh, "ts")
    made.flow("labels", ["t", "s"], objective="ce")
    made.flow("t", "s", objective="kl", detach=False)
    begun, plan = start(made), made.plan()
    assert len(plan.stages) == 1 and plan.edges[-1].refresh == "step"
    result = made.run(backend="inline")
    at = begun.batches(1)[0]
    said = {name: module(begun.x[at]) for name, module in begun.modules.items()}
    loss = F.cross_entropy(said["t"], begun.y[at]) + kl(said["s"], said["t"].softmax(-1))
    for ours, theirs in zip(
        moved(begun, result, "t"), torch.autograd.grad(loss, list(begun.modules["t"].parameters())), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "labels": ({"source": "labels", "objective": "ce"}, "labels have no weights"),
    "a frozen teacher": ({"source": "f", "objective": "kl"}, "f does not train by gradient"),
    "a stored signal": ({"source": "a", "objective": "kl", "refresh": "epoch"}, "refresh: step"),
    "after the update": ({"source": "a", "objective": "kl", "refresh": "step", "sees": "after"}, "before the update"),
    "eval mode": ({"source": "a", "objective": "kl", "refresh": "step", "mode": "eval"}, "train mode"),
    "a detached consensus": ({"source": "c", "objective": "kl"}, "every flow into c is detached"),
    "votes": ({"source": "a", "objective": "ce", "signal": "votes"}, "through the signal 'votes'"),
}


@pytest.mark.parametrize(("flow", "said"), REFUSED.values(), ids=REFUSED)
def test_a_gradient_that_goes_nowhere_is_refused(mesh: Any, flow: dict[str, Any], said: str) -> None:
    made = mesh({"a": {}, "b": {}, "f": {"update": "frozen"}})
    made.flow("labels", ["a", "b"], objective="ce")
    made.consensus("c", "mean")
    made.flow(["a", "f"], "c", refresh="step")
    made.flow("c", "b", objective="kl") if flow["source"] != "c" else None
    made.flow(flow["source"], "b", detach=False, **{key: value for key, value in flow.items() if key != "source"})
    with pytest.raises(MeshError) as error:
        examine(made.plan(), made._modules, made.table)
    assert error.value.where.endswith(".detach") and said in str(error.value)


def test_a_consensus_whose_readers_are_detached_passes_no_gradient(mesh: Any) -> None:
    made = mesh("ab")
    made.flow("labels", ["a", "b"], objective="ce")
    made.consensus("c", "mean")
    made.flow(["a", "b"], "c", refresh="step", detach=False)
    made.flow("c", "b", objective="kl")
    with pytest.raises(MeshError, match="every flow out of c is detached"):
        made.plan()


def test_a_trained_rule_learns_with_its_reader(mesh: Any, opened: Any, start: Any) -> None:
    made = one_step(mesh, "abs")
    made.flow("labels", ["a", "b", "s"], objective="ce")
    made.consensus("g", "gate")
    made.flow(["a", "b"], "g", refresh="step")
    made.flow("g", "s", objective="kl", detach=False)
    begun = start(made)
    run, hosts = opened(made)
    run.execute()
    at = begun.batches(1)[0]
    rule = Gate()
    values = torch.stack([begun.modules[name](begun.x[at]).softmax(-1).detach() for name in "ab"])
    loss = kl(begun.modules["s"](begun.x[at]), weighted_sum(values, rule.weights(values)))
    (expected,) = torch.autograd.grad(loss, [rule.scores])
    torch.testing.assert_close(hosts["host0"].consensus["g"].rule.scores.detach(), -expected)
    assert expected.abs().max() > 1e-5


def test_a_trained_rules_schedule_is_over_its_readers_updates(mesh: Any, opened: Any) -> None:
    made = one_step(mesh, "abs", steps=4, schedule="linear")
    made.flow("labels", ["a", "b", "s"], objective="ce")
    made.consensus("g", "gate")
    made.flow(["a", "b"], "g", refresh="step")
    made.flow("g", "s", objective="kl", detach=False)
    run, hosts = opened(made)
    run.execute()
    schedules = [hosts["host0"].weights[name].schedule for name in ("g", "s")]
    assert [[one.lr_lambdas[0](update) for update in range(4)] for one in schedules] == [[1, 0.75, 0.5, 0.25]] * 2


@pytest.mark.parametrize("space", ["loss", "gradient"])
def test_coefficients_weigh_each_sources_loss(mesh: Any, start: Any, space: str) -> None:
    rule = {"loss": "entropy", "gradient": "steepest"}[space]
    made = one_step(mesh, "abs")
    made.consensus("c", rule, space=space)
    made.flow(["a", "b"], "c", refresh="step")
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("c", "s", objective={"kl": {"temperature": 2}}, weight=0.5)
    begun, result = start(made), made.run(backend="inline")
    at = begun.batches(1)[0]
    said = torch.stack([begun.modules[name](begun.x[at]).detach() for name in "ab"])
    own = begun.modules["s"](begun.x[at])
    q, p = (own / 2).log_softmax(-1), (said / 2).softmax(-1)
    per_sample = (p * (p.log() - q)).sum(-1) * 4  # [2, B]
    if space == "gradient":
        gradients = (q.exp() - p) * 2  # of each sample's loss at the own logits, up to the batch size
        first = gradients[0].norm(dim=-1) >= gradients[1].norm(dim=-1)
        shares = torch.stack([first, ~first]).double()
    else:
        made_rule = registry().find("consensus", rule).make()
        shares = made_rule.weights(said)
    loss = 0.5 * (shares.detach() * per_sample).sum() / len(at)
    expected = torch.autograd.grad(loss, list(begun.modules["s"].parameters()))
    for ours, theirs in zip(moved(begun, result, "s"), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_rule_with_labels_reads_those_of_the_batch(mesh: Any, start: Any) -> None:
    made = one_step(mesh, "abs")
    made.consensus("c", "lowest_ce")
    made.flow(["a", "b"], "c", refresh="step")
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("c", "s", objective="kl")
    begun, result = start(made), made.run(backend="inline")
    at = begun.batches(1)[0]
    said = torch.stack([begun.modules[name](begun.x[at]).detach() for name in "ab"])
    losses = torch.stack([F.cross_entropy(one, begun.y[at], reduction="none") for one in said])
    best = said[losses.argmin(0), torch.arange(len(at))].softmax(-1)
    expected = torch.autograd.grad(kl(begun.modules["s"](begun.x[at]), best), list(begun.modules["s"].parameters()))
    for ours, theirs in zip(moved(begun, result, "s"), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert result.summary["consensus"]["c"]["oracle"]


def test_a_live_and_a_stored_source_meet_in_one_consensus(mesh: Any, start: Any) -> None:
    made = one_step(mesh, "tps")
    made._fields["agents"]["t"]["update"] = "frozen"
    made.flow("labels", "p", objective="ce")
    made.consensus("c", "mean")
    made.flow("t", "c", refresh="once")
    made.flow("p", "c", refresh="step")
    made.flow("c", "s", objective="kl")
    begun, result = start(made), made.run(backend="inline")
    at = begun.batches(1)[0]
    mean = sum(begun.modules[name](begun.x[at]).softmax(-1).detach() for name in "tp") / 2
    expected = torch.autograd.grad(kl(begun.modules["s"](begun.x[at]), mean), list(begun.modules["s"].parameters()))
    for ours, theirs in zip(moved(begun, result, "s"), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("placement", ["together", "spread"])
def test_nobody_hears_itself_under_leave_one_out(mesh: Any, start: Any, placement: str) -> None:
    """Also where the consensus that leaves the reader out is nested in another one."""
    made = one_step(mesh, "abc")
    made._fields["placement"] = placement
    made.consensus("inner", "mean", include_self=False)
    made.consensus("outer", "mean")
    made.flow(["a", "b", "c"], "inner", refresh="step")
    made.flow("inner", "outer")
    made.flow("outer", ["a", "b", "c"], objective="kl")
    begun, result = start(made), made.run(backend="inline")
    at = begun.batches(1)[0]
    said = {name: begun.modules[name](begun.x[at]) for name in "abc"}
    for name in "abc":
        others = sum(said[other].softmax(-1).detach() for other in "abc" if other != name) / 2
        expected = torch.autograd.grad(
            kl(said[name], others), list(begun.modules[name].parameters()), retain_graph=True
        )
        for ours, theirs in zip(moved(begun, result, name), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_signals_on_shards_of_others_are_refused(mesh: Any) -> None:
    """a's third sample is not b's third sample."""
    made = mesh(["a", "b"], streams={"own": {"shards": {"of": ["a", "b"]}}})
    made.flow("labels", ["a", "b"], objective="ce", stream="own")
    made.flow("a", "b", objective="kl", stream="own")
    with pytest.raises(MeshError, match="different samples of 'own'") as error:
        made.run(backend="inline")
    assert error.value.where == "flows.1.stream"
