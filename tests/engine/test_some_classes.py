"""Agents that know some of the classes: what they learn, what is compared with them, and how they are measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kdmesh.contracts.objective import Objective
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.modules import known_classes
from kdmesh.offers import ObjectiveOffer
from kdmesh.plugins import registry
from kdmesh.signals import Signal
from kdmesh.spec.read import parse

FROZEN = {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}


class Informed(Objective):
    """An objective that asks for labels."""

    def forward(self, student, target, *, form="logits", weights=None, labels=None):
        return F.cross_entropy(student, labels)


def test_labels_teach_its_own_columns_and_other_samples_weigh_nothing(mesh: Any, start: Any) -> None:
    known = [2, 0]
    made = mesh({"a": {"labels": known}})
    made.flow("labels", "a", objective="ce")
    begun = start(made)
    module, y = begun.modules["a"].train(), begun.y
    assert module(begun.x[:4]).shape == (4, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for at in begun.batches(3):
        own = [known.index(label) if label in known else 0 for label in y[at].tolist()]
        heard = (y[at] != 1).float()
        losses = F.cross_entropy(module(begun.x[at]), torch.tensor(own), reduction="none")
        optimizer.zero_grad()
        ((losses * heard).sum() / len(at)).backward()
        optimizer.step()
    state = made.run(backend="inline").agents["a"].module.state_dict()
    for name, value in module.state_dict().items():  # the engine leaves samples of weight 0 out before the softmax
        torch.testing.assert_close(state[name], value)


def test_it_is_measured_against_all_classes(mesh: Any, table: Any) -> None:
    made = mesh({"a": {"labels": [2, 0]}}, train={"epochs": 20})
    made.flow("labels", "a", objective="ce")
    result = made.run(backend="inline").agents["a"]
    rows, found = table.official["test"], result.metrics["test"]
    x, y = table.x[rows], table.y[rows]
    with torch.no_grad():
        logits = result.module.eval()(x)
    answers = torch.tensor([2, 0])[logits.argmax(1)]
    assert found["accuracy"] == pytest.approx((answers == y).double().mean().item())
    assert 0.4 < found["accuracy"] < (y != 1).double().mean().item() + 1e-9
    heard = y != 1
    loss = F.cross_entropy(logits[heard], (y[heard] == 0).long())
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)  # rows summed in another order


def test_a_teacher_of_some_classes_says_nothing_about_the_others(mesh: Any, start: Any) -> None:
    made = mesh({"t": {**FROZEN, "labels": [2, 0]}, "s": {}})
    made.flow("t", "s", objective="kl")
    before = start(made).modules["s"].state_dict()
    after = made.run(backend="inline").agents["s"].module.state_dict()
    moved = [(after[name] != before[name]).flatten(1).any(1) for name in before if before[name].shape == (3, 8)]
    assert [rows.tolist() for rows in moved] == [[True, False, True]]


@pytest.mark.parametrize("space", ["logits", "loss"])
def test_a_rule_that_needs_labels_is_given_those_of_its_members(mesh: Any, opened: Any, space: str) -> None:
    some = {**FROZEN, "labels": [2, 0]}
    made = mesh({"a": some, "b": some, "s": {"labels": [0, 2]}})
    made.consensus("c", "lowest_ce", space=space)
    made.flow(["a", "b"], "c")
    made.flow("c", "s", objective="mse")
    run, hosts = opened(made)
    host = next(iter(hosts.values()))
    said = {"a": torch.tensor([[5.0, 0.0]] * 3), "b": torch.tensor([[0.0, 7.0]] * 3)}
    y = torch.tensor([2, 0, 1])
    node = host.consensus["c"]
    if space == "loss":
        signals = [Signal(value, "logits") for value in said.values()]
        weights = node.weigh(signals, {"present": None, "labels": y})
        assert weights.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    else:
        signal = node.combine("s", lambda edge: Signal(said[edge.source], edge.form), {"labels": y})
        assert signal.value[:2].tolist() == [[5.0, 0.0], [0.0, 7.0]]
        assert signal.weights.tolist() == [1.0, 1.0, 0.0]  # nobody knows class 1
    run.execute()


def test_a_consensus_of_some_classes_is_measured_as_an_agent_is(mesh: Any) -> None:
    known = {"a": [2, 0], "b": [0, 2]}
    made = mesh({**{name: {"labels": labels} for name, labels in known.items()}, "s": {}}, train={"epochs": 15})
    made.consensus("c", "uhc")
    made.flow(["a", "b"], "c", refresh="epoch")
    made.flow("c", "s", objective="kl")
    for name in "abs":
        made.flow("labels", name, objective="ce")
    result = made.run(backend="inline")
    found = {name: agent.metrics["test"] for name, agent in result.agents.items()}
    common = result.summary["consensus"]["c"]["metrics"]["test"]
    assert max(found["a"]["accuracy"], found["b"]["accuracy"]) < found["s"]["accuracy"]
    assert common["accuracy"] == pytest.approx(found["a"]["accuracy"], abs=0.1)
    assert 0 < common["loss"] < 1  # and not infinite


def test_sources_agree_where_they_name_one_class(mesh: Any, opened: Any) -> None:
    made = mesh({"a": {**FROZEN, "labels": [2, 0]}, "b": {**FROZEN, "labels": [0, 1]}, "s": {}})
    made.consensus("c", "concat")
    made.flow(["a", "b"], "c")
    made.flow("c", "s", objective="kl")
    _, hosts = opened(made)
    host = next(iter(hosts.values()))
    sent = [host.publish(name, "test", ("",)) for name in "ab"]
    found = host.evaluate_consensus("c", "test", ["a", "b"], *sent)
    rows = host.streams["test"].rows
    with torch.no_grad():
        a, b = (host.agents[name].module(host.table.x[rows]).argmax(1) for name in "ab")
    assert found["agreement"] == pytest.approx(((a == 1) & (b == 0)).double().mean().item())


def test_objectives_that_need_labels_are_refused(mesh: Any, monkeypatch: Any) -> None:
    offer = ObjectiveOffer("informed", f"{__name__}:Informed", forms=("logits",), needs=("labels",))
    monkeypatch.setitem(registry()._offers["objectives"], "informed", offer)
    made = mesh({"t": {**FROZEN, "labels": [0, 2]}, "s": {"labels": [0, 2]}})
    made.flow("t", "s", objective="informed")
    with pytest.raises(MeshError, match=r"'informed' needs labels of all classes, and s knows only \[0, 2\]") as caught:
        made.run(backend="inline")
    assert caught.value.where.endswith(".objective")


def test_classes_that_the_data_lack_are_refused(mesh: Any) -> None:
    made = mesh({"a": {"labels": [0, 3]}})
    made.flow("labels", "a", objective="ce")
    with pytest.raises(MeshError, match="the data have no class 3") as caught:
        made.run(backend="inline")
    assert (caught.value.where, caught.value.instead) == ("agents.a.labels", "classes 0 to 2")


def test_a_language_model_has_no_classes(table: Any) -> None:
    spec = {"task": "language_modelling", "agents": {"a": {"labels": [0, 1]}}}
    with pytest.raises(MeshError, match="outputs of a language model are its tokens") as caught:
        known_classes(make_plan(parse(spec), registry()), "a", table)
    assert caught.value.where == "agents.a.labels"


@pytest.mark.parametrize("teacher", ["ema", "epoch"])
def test_who_teaches_itself_keeps_its_classes(mesh: Any, table: Any, teacher: str) -> None:
    made = mesh({"s": {"labels": [1, 2]}}, train={"epochs": 15})
    made.connect("self", student="s", teacher=teacher, **({"decay": 0.5} if teacher == "ema" else {}))
    known = (table.y[table.official["test"]] != 0).double().mean().item()
    for agent in made.run(backend="inline").agents.values():
        assert known / 2 < agent.metrics["test"]["accuracy"] <= known
