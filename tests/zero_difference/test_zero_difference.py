"""kdmesh and plain loops, from the same weights and order, end with weights whose largest difference is exactly 0.0."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import plain
import pytest
from both import CNN, EPOCHS, LARGE, MLP, OPTIMIZERS, Both


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


def test_a_teacher_that_rests_by_a_plugin(optimizer: str, cookbook: Any) -> None:
    both = Both(optimizer, {"t": LARGE, "s": MLP}, "switokd", teacher="t", student="s", temperature=0.1)
    rests = plain.switched(both.modules["t"], both.modules["s"], both.data, both.make, temperature=0.1)
    assert 0 < rests < 3 * EPOCHS, "or nothing is compared"
    assert both.difference() == 0.0


@pytest.mark.parametrize("forget", [0.5, 0.2])
def test_co_teaching_by_a_plugin(optimizer: str, forget: float, cookbook: Any) -> None:
    both = Both(optimizer, {"a": MLP, "b": CNN}, "co_teaching", peers=["a", "b"], forget=forget, epochs=2)
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
