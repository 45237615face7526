"""Regression: metrics against scikit-learn, what is refused, and a run equal to a plain loop, bit for bit."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from sklearn import metrics as known
from torch.nn import functional as F

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.metrics import UNDEFINED, measure
from kdmesh.hosts.modules import build
from kdmesh.metrics import R2, Answers, MeanAbsoluteError, MeanSquaredError
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec
from kdmesh.streams.order import epoch_order
from kdmesh.streams.table import Table

MLP = {"mlp": {"hidden": [8]}}
ENSEMBLE = {"teachers": ["a", "b"], "student": "s", "objective": "mse"}
EPOCHS, SIZE = 3, 32


def values(rows: int = 300, targets: int = 2, far: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(rows, targets, generator=generator, dtype=torch.float64) * 3 + far
    return y + torch.randn(rows, targets, generator=generator, dtype=torch.float64), y


@pytest.mark.parametrize("targets", [1, 3])
def test_metrics_are_those_of_scikit_learn(targets):
    scores, y = values(targets=targets)
    found = measure({"r2": R2(), "mse": MeanSquaredError(), "mae": MeanAbsoluteError()}, scores, y)
    assert found["r2"] == pytest.approx(known.r2_score(y, scores), abs=1e-12)
    assert found["mse"] == pytest.approx(known.mean_squared_error(y, scores), abs=1e-12)
    assert found["mae"] == pytest.approx(known.mean_absolute_error(y, scores), abs=1e-12)


def test_the_variance_of_large_values_keeps_its_digits():
    scores, y = values(far=1e7)
    made = R2()
    made.update(Answers(scores[:100], y[:100]))
    made.update(Answers(scores[100:], y[100:]))
    assert made.compute() == pytest.approx(known.r2_score(y, scores), abs=1e-9)


def test_of_values_that_do_not_vary_r2_is_not_defined():
    scores, y = values()
    y[:, 1] = 4.0
    found = measure({"r2": R2(), "mae": MeanAbsoluteError()}, scores, y)
    assert found[UNDEFINED] == {"r2": "value 1 is the same in every row"} and "mae" in found and "r2" not in found


def planned(**fields):
    made = {"task": "regression", "data": "diabetes", "agents": {n: {"model": MLP} for n in "abs"}, **fields}
    return make_plan(MeshSpec.model_validate(made), registry())


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"flows": [{"from": "labels", "to": "a", "objective": "ce"}]}, "flows.0.objective", "reads labels that are"),
        ({"connect": [{"mutual": {"peers": ["a", "b"], "objective": "kl"}}]}, "connect.0.mutual", "compares probab"),
        ({"connect": [{"ensemble": {**ENSEMBLE, "consensus": "entropy"}}]}, "connect.0", "combines answers"),
        ({"connect": [{"ensemble": {**ENSEMBLE, "consensus": "vote"}}]}, "connect.0", "combines answers"),
        ({"metrics": ["accuracy"]}, "metrics.0", "the labels of task regression are values"),
        ({"task": "classification", "metrics": ["r2"]}, "metrics.0", "the labels of task classification are classes"),
        ({"task": "classification", "connect": [], "flows": [
            {"from": "labels", "to": "a", "objective": "mse"}]}, "flows.0.objective", "reads labels that are values"),
        ({"train": {"early_stopping": {"metric": "accuracy"}}}, "train.early_stopping.metric", "is not measured"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_of_values_is_refused_when_planned(fields, where, what):
    with pytest.raises(kdmesh.MeshError, match=what) as error:
        planned(**fields)
    assert error.value.where.startswith(where)


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"data": "digits"}, "task", "learns values, and the labels of these data are classes"),
        ({"task": "classification"}, "task", "learns classes, and the labels of these data are values"),
        ({"agents": {"a": {"model": MLP, "labels": [0]}}}, "agents.a.labels", "has no classes"),
        ({"streams": {"few": {"of": "train", "only": [1]}}}, "streams.few.only", "no classes to choose by"),
        ({"streams": {"few": {"of": "train", "shards": {"by": "class", "of": ["a"]}}}}, "streams.few", "are classes"),
    ],
)
def test_data_of_another_kind_is_refused_when_checked(fields, where, what):
    with pytest.raises(kdmesh.MeshError, match=what) as error:
        examine(planned(**fields))
    assert error.value.where.startswith(where)


def test_rounds_that_end_by_agreement_need_answers_that_can_agree():
    program = [{"of": ["a", "b"], "repeat": 2, "until": {"agreement": 0.9}, "do": [{"train": ["a", "b"]}]}]
    flows = [{"from": x, "to": y, "objective": "mse"} for x, y in (("a", "b"), ("b", "a"))]
    agents = {name: {"model": MLP} for name in "ab"}
    with pytest.raises(kdmesh.MeshError, match="are values, of which agreement is not defined"):
        examine(planned(agents=agents, flows=flows, program=program))


@pytest.mark.parametrize("rule", ["mean", "median", "inverse_variance"])
@pytest.mark.parametrize("targets", [1, 2])
def test_an_ensemble_is_a_plain_loop_bit_for_bit(rule, targets):
    """Two teachers learn values by MSE; their mean, weighted or not, or median teaches a student beside the labels."""
    table = registry().find("datasets", "diabetes").make({})
    y = torch.cat([table.y, table.x[:, :1] * 0.5 - table.y], 1)[:, :targets].contiguous()
    table = Table(table.x, y, classes=0)
    make = partial(torch.optim.SGD, lr=0.02, momentum=0.9, fused=True)
    train = {"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.02, "momentum": 0.9}}}
    mesh = kdmesh.Mesh(data=table, task="regression", seed=7, train=train)
    for name in "abs":
        mesh.agent(name, MLP)
    mesh.connect("ensemble", teachers=["a", "b"], student="s", objective="mse", consensus=rule, labels=0.5)
    plan = mesh.plan()
    assert {node.space for node in plan.consensus.values()} == {"logits"}
    found = examine(plan, table=table)
    rows = found.streams["train"].rows
    x, y = table.x[rows], table.y[rows]
    modules = {name: build(plan, name, found.reading, registry(), {}) for name in "abs"}
    orders = [epoch_order(7, "train", epoch, len(rows)) for epoch in range(EPOCHS)]
    batches = [at for order in orders for at in order.split(SIZE)]

    def squares(one, other):
        return F.mse_loss(one, other, reduction="none").sum() / len(one)

    for name in "ab":
        optimizer = make(modules[name].parameters())
        for at in batches:
            optimizer.zero_grad()
            squares(modules[name](x[at]), y[at]).backward()
            optimizer.step()

    @torch.no_grad()
    def answers(teacher, x=x):
        teacher.eval()
        missing = -len(x) % SIZE
        padded = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])
        return torch.cat([teacher(part) for part in padded.split(SIZE)])[: len(x)]

    one, other = answers(modules["a"]), answers(modules["b"])
    target = (one + other) / 2
    if rule == "inverse_variance":
        held = found.streams["validation"].rows
        errors = [((answers(modules[n], table.x[held]).double() - table.y[held]) ** 2).mean(0) for n in "ab"]
        least = torch.minimum(*errors)
        shares = [(least / error) / (least / errors[0] + least / errors[1]) for error in errors]
        target = one * shares[0].float() + other * shares[1].float()
    optimizer = make(modules["s"].parameters())
    for at in batches:
        optimizer.zero_grad()
        own = modules["s"](x[at])
        parts = {"labels": 0.5 * squares(own, y[at]), "teachers": 0.5 * squares(own, target[at])}
        sum(parts[name] for name in order_of(plan)).backward()
        optimizer.step()
    result = mesh.run(backend="inline")
    worst = max(
        (own - other).abs().max().item()
        for name in "abs"
        for own, other in zip(result[name].module.parameters(), modules[name].parameters(), strict=True)
    )
    assert worst == 0.0


def order_of(plan):
    """The student's losses, in declared order."""
    return ["labels" if edge.source == "labels" else "teachers" for edge in plan.edges if edge.target == "s"]


def test_values_are_the_same_inline_and_in_parts_of_private_data():
    """Teachers of shards of their own: values divide by chance, and what a host does not hold is blank."""
    streams = {"own": {"of": "train", "shards": {"by": "iid", "of": ["a", "b"]}, "private": True}}
    flows = [{"from": "labels", "to": name, "stream": "own"} for name in "ab"]
    made = [
        kdmesh.Mesh(
            task="regression", data="diabetes", streams=streams, placement=placement,
            train={"epochs": 2}, agents={name: {"model": MLP} for name in "ab"},
            flows=[{**flow, "objective": "mse"} for flow in flows],
        ).run(backend="inline").summary["agents"]
        for placement in ("together", "spread")
    ]  # fmt: skip
    assert {n: one["weights_sha256"] for n, one in made[0].items()} == {
        n: one["weights_sha256"] for n, one in made[1].items()
    }
    assert all(one["metrics"]["test"]["r2"] < 1 for one in made[0].values())


def test_an_idle_model_of_values_is_at_chance():
    mesh = kdmesh.Mesh(task="regression", data="diabetes", train={"epochs": 1, "optimizer": {"sgd": {"lr": 1e-9}}})
    mesh.agent("idle", MLP)
    (note,) = (n for n in mesh.run(backend="inline").summary["notes"] if n.startswith("at chance"))
    assert note.startswith("at chance, no better on test than the mean value (0.0000): idle")
