"""kdmesh and plain loops, from the same weights and order, end with weights whose largest difference is exactly 0.0."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import plain
import pytest
import torch

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.hosts.modules import build
from kdmesh.plugins import registry
from kdmesh.streams.order import epoch_order

EPOCHS, SIZE = 3, 64
MLP, CNN = {"mlp": {"hidden": [24]}}, {"cnn": {"width": 4}}
LARGE = {"mlp": {"hidden": [48, 32]}}
# fused, as kdmesh makes them: other implementations of the same optimiser round differently
OPTIMIZERS: dict[str, tuple[dict[str, Any], plain.MakeOptimizer]] = {
    "adamw": ({"adamw": {"lr": 3e-3}}, partial(torch.optim.AdamW, lr=3e-3, fused=True)),
    "sgd": ({"sgd": {"lr": 0.05, "momentum": 0.9}}, partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True)),
}


class Both:
    """One mesh, run by kdmesh; and its agents' initial modules and data, for a plain loop."""

    def __init__(
        self,
        optimizer: str,
        models: dict[str, Any],
        strategy: str,
        *,
        gates: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        config, self.make = OPTIMIZERS[optimizer]
        self.mesh = kdmesh.Mesh(
            data={"dataset": "digits", "train": 150},  # 64, 64 and 22 samples a batch
            seed=7,
            train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": config},
        )
        for name, model in models.items():
            self.mesh.agent(name, model, **({"gate": gates[name]} if gates else {}))
        if strategy:
            self.mesh.connect(strategy, **fields)
        plan = self.mesh.plan()
        found = examine(plan)
        table, rows = found.table, found.streams["train"].rows
        assert table.y is not None
        orders = [epoch_order(7, "train", epoch, len(rows)) for epoch in range(EPOCHS)]
        assert len(rows) % SIZE, "the last batch is to be smaller"
        self.data = plain.Data(table.x[rows], table.y[rows], orders, SIZE)
        self.modules = {name: build(plan, name, found.reading, registry(), {}) for name in plan.spec.agents}

    def learn(self, *names: str) -> None:
        """Train agents from labels, plainly."""
        for name in names:
            plain.supervised(self.modules[name], self.data, self.make)

    def difference(self) -> float:
        """Run the mesh; the largest difference of any weight of any agent to the plain modules'."""
        result = self.mesh.run(backend="inline")
        return max(
            (ours - theirs).abs().max().item()
            for name, module in self.modules.items()
            for ours, theirs in zip(result[name].module.parameters(), module.parameters(), strict=True)
        )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The mesh's agents compute with one thread, so the plain loops do too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("student", [MLP, CNN], ids=["mlp", "cnn"])
def test_one_teacher_with_labels(optimizer: str, student: dict[str, Any]) -> None:
    both = Both(optimizer, {"t": LARGE, "s": student}, "ensemble", teachers="t", student="s", labels=0.5)
    both.learn("t")
    plain.distil(both.modules["s"], [both.modules["t"]], both.data, both.make)
    assert both.difference() == 0.0


def test_another_weight_differs() -> None:
    both = Both("adamw", {"t": LARGE, "s": MLP}, "ensemble", teachers="t", student="s", labels=0.5)
    both.learn("t")
    plain.distil(both.modules["s"], [both.modules["t"]], both.data, both.make, alpha=0.6)
    assert both.difference() > 1e-4


@pytest.mark.parametrize("space", ["probs", "logits"])
def test_three_teachers(optimizer: str, space: str) -> None:
    teachers = ["t1", "t2", "t3"]
    both = Both(
        optimizer,
        {"t1": LARGE, "t2": CNN, "t3": MLP, "s": MLP},
        "ensemble",
        teachers=teachers,
        student="s",
        consensus={"rule": "mean", "space": space},
    )
    both.learn(*teachers)
    plain.distil(both.modules["s"], [both.modules[name] for name in teachers], both.data, both.make, space=space)
    assert both.difference() == 0.0


@pytest.mark.parametrize("models", [[MLP, CNN], [MLP, CNN, LARGE]], ids=["two", "three"])
@pytest.mark.parametrize("order", ["simultaneous", "sequential"])
def test_mutual_learning(optimizer: str, models: list[dict[str, Any]], order: str) -> None:
    peers = {f"p{i}": model for i, model in enumerate(models)}
    both = Both(optimizer, peers, "mutual", peers=list(peers), order=order)
    plain.mutual([both.modules[name] for name in peers], both.data, both.make, sequential=order == "sequential")
    assert both.difference() == 0.0


def test_the_order_of_updates_matters() -> None:
    both = Both("adamw", {"a": MLP, "b": MLP}, "mutual", peers=["a", "b"], order="simultaneous")
    plain.mutual([both.modules["a"], both.modules["b"]], both.data, both.make, sequential=True)
    assert both.difference() > 1e-6


def test_two_hop_chain(optimizer: str) -> None:
    both = Both(optimizer, {"t": LARGE, "a": CNN, "s": MLP}, "chain", agents=["t", "a", "s"])
    both.learn("t")
    plain.distil(both.modules["a"], [both.modules["t"]], both.data, both.make)
    plain.distil(both.modules["s"], [both.modules["a"]], both.data, both.make)
    assert both.difference() == 0.0


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_mean_teacher(optimizer: str, model: dict[str, Any]) -> None:
    both = Both(optimizer, {"s": model}, "self", student="s", teacher="ema", decay=0.9)
    plain.mean_teacher(both.modules["s"], both.modules["s.ema"], both.data, both.make, decay=0.9)
    assert both.difference() == 0.0


def test_a_teacher_that_rests(optimizer: str) -> None:
    gates = {"t": {"gap": {"of": "s", "temperature": 0.1}}, "s": None}
    both = Both(optimizer, {"t": LARGE, "s": MLP}, "mutual", gates=gates, peers=["t", "s"])
    rests = plain.switched(both.modules["t"], both.modules["s"], both.data, both.make, temperature=0.1)
    assert 0 < rests < 3 * EPOCHS, "or nothing is compared"
    assert both.difference() == 0.0


@pytest.mark.parametrize("forget", [0.5, 0.2])
def test_co_teaching(optimizer: str, forget: float) -> None:
    both = Both(optimizer, {"a": MLP, "b": CNN}, "")
    for name, other in (("a", "b"), ("b", "a")):
        gate = {"small_loss": {"of": other, "forget": forget, "epochs": 2}}
        both.mesh.flow("labels", name, objective="ce", gate=gate)
    plain.co_teaching([both.modules["a"], both.modules["b"]], both.data, both.make, forget=forget, epochs=2)
    assert both.difference() == 0.0


def test_rows_of_its_own_choice_are_others() -> None:
    both = Both("adamw", {"a": MLP, "b": CNN}, "")
    both.mesh.flow("labels", ["a", "b"], objective="ce", gate={"small_loss": {"forget": 0.5, "epochs": 2}})
    plain.co_teaching([both.modules["a"], both.modules["b"]], both.data, both.make, forget=0.5, epochs=2)
    assert both.difference() > 1e-4


def test_the_plain_loops_import_nothing_of_kdmesh() -> None:
    tree = ast.parse(Path(plain.__file__).read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in found} == {"__future__", "collections", "typing", "torch"}
