"""Which columns are shared where agents know different classes, and what a list of layers expands to."""

from __future__ import annotations

import pytest

from kdmesh.graph.planner import make_plan
from kdmesh.spec import MeshSpec

LABELS = {"from": "labels", "to": "s", "objective": "ce"}


def flow(source, target, **more):
    return {"from": source, "to": target, **more}


def classes(plan):
    return {str(edge): edge.classes for edge in plan.edges}


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (None, None, None),
        ([2, 0], [2, 0], None),
        ([2, 0], [0, 2], (1, 0)),
        ([4, 7], None, (4, 7)),
        ([4, 7], [7, 1, 4], (2, 0)),
    ],
)
def test_a_flow_knows_the_columns_that_both_ends_share(plan, teacher, student, expected):
    agents = {"t": {"labels": teacher, "update": "frozen"}, "s": {"labels": student}}
    made = plan({"agents": agents, "flows": [LABELS, flow("t", "s", objective="kl")]})
    assert classes(made) == {"labels -> s": None, "t -> s": expected}


def test_a_partial_rule_joins_the_classes_of_its_sources(plan):
    agents = {name: {"labels": known, "update": "frozen"} for name, known in {"a": [5, 1], "b": [3, 5]}.items()}
    flows = [LABELS, flow(["a", "b"], "c"), flow("c", "s", objective="kl")]
    made = plan({"agents": {**agents, "s": {}}, "consensus": {"c": "uhc"}, "flows": flows})
    assert made.consensus["c"].labels == (1, 3, 5)
    assert classes(made) == {"labels -> s": None, "a -> c": (2, 0), "b -> c": (1, 2), "c -> s": (1, 3, 5)}


def test_a_source_of_all_classes_leaves_the_rest_their_numbers(plan):
    agents = {"a": {"update": "frozen"}, "b": {"labels": [3, 2], "update": "frozen"}, "s": {}}
    flows = [LABELS, flow(["a", "b"], "c"), flow("c", "s", objective="kl")]
    made = plan({"agents": agents, "consensus": {"c": "concat"}, "flows": flows})
    assert made.consensus["c"].labels is None
    assert classes(made) == {"labels -> s": None, "a -> c": None, "b -> c": (3, 2), "c -> s": None}


def test_a_consensus_within_one_brings_its_classes(plan):
    known = {"a": [0, 1], "b": [1, 2], "d": [2, 3]}
    agents = {name: {"labels": labels, "update": "frozen"} for name, labels in known.items()}
    flows = [LABELS, flow(["inner", "d"], "outer"), flow(["a", "b"], "inner"), flow("outer", "s", objective="kl")]
    nodes = {"outer": "concat", "inner": "uhc"}
    made = plan({"agents": {**agents, "s": {"labels": [0, 1, 2, 3]}}, "consensus": nodes, "flows": flows})
    assert {name: node.labels for name, node in made.consensus.items()} == {"outer": (0, 1, 2, 3), "inner": (0, 1, 2)}
    assert classes(made)["inner -> outer"] == (0, 1, 2)
    assert classes(made)["outer -> s"] is None


def test_the_column_of_a_rule_is_known_to_the_plan(plan):
    rule = {"route": {"column": "domain", "to": {"law": "a", 7: "b"}, "else": "mean"}}
    agents = {"a": {"update": "frozen"}, "b": {"update": "frozen"}, "s": {}}
    flows = [LABELS, flow(["a", "b"], "c"), flow("c", "s", objective="kl")]
    made = plan({"agents": agents, "consensus": {"c": rule}, "flows": flows})
    assert made.consensus["c"].column == "domain"
    again = plan(made.resolved().model_dump(by_alias=True, exclude_none=True))
    assert again.consensus["c"].rule == made.consensus["c"].rule


def test_a_list_of_layers_is_a_flow_for_each(plan, offered):
    pairs = [{"of": "layers.3", "to": "layers.0"}, "layers.1"]
    agents = {"t": {"update": "frozen"}, "s": {}}
    flows = [LABELS, flow("t", "s", objective="hint", tap=pairs, weight=0.5)]
    made = plan({"agents": agents, "flows": flows})
    taps = [(edge.tap.of, edge.tap.to, edge.weight) for edge in made.edges if edge.tap]
    assert taps == [("layers.3", "layers.0", 0.5), ("layers.1", "layers.1", 0.5)]
    spelt = make_plan(MeshSpec.model_validate(made.resolved().model_dump(by_alias=True, exclude_none=True)), offered)
    assert [(edge.id, edge.tap) for edge in spelt.edges] == [(edge.id, edge.tap) for edge in made.edges]
