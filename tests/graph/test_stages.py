"""What holds for the stages and steps of any mesh, on random graphs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.errors import MeshError

PERIODS = [None, None, "step", "round", "once"]
FROZEN = tuple(f"a{i} follows a{j}, which is frozen" for i in range(7) for j in range(7))
REFUSALS = ("once inside a stage", "stages wait for each other", "cycle within a step", *FROZEN)


def learns(name, agents):
    """Whether gradient descent moves an agent's weights: only then may a flow of targets end at it."""
    while "weights_of" in agents[name]:
        name = agents[name]["weights_of"]
    return "update" not in agents[name]


@st.composite
def meshes(draw):
    """A mesh of up to seven agents: frozen ones, shared and following weights, up to two consensus nodes."""
    names = [f"a{i}" for i in range(draw(st.integers(2, 7)))]
    agents: dict[str, dict] = {names[0]: {}}
    for name in names[1:]:
        other = draw(st.sampled_from(sorted(agents)))
        kinds = [{}, {}, {}, {"update": "frozen"}, {"weights_of": other}, {"update": {"ema": {"of": other}}}]
        agents[name] = draw(st.sampled_from(kinds))
    flows = [{"from": "labels", "to": name, "objective": "ce"} for name, agent in agents.items() if not agent]
    node, period = st.sampled_from(names), st.sampled_from(PERIODS)
    learner = st.sampled_from([name for name in names if learns(name, agents)])
    for source, target, refresh in draw(st.lists(st.tuples(node, learner, period), max_size=9)):
        if source != target:
            flows.append({"from": source, "to": target, "objective": "kl", "refresh": refresh})
    consensus = {}
    for name in ("c", "d")[: draw(st.integers(0, 2))]:
        consensus[name] = "mean"
        for source in draw(st.lists(node, min_size=1, max_size=3, unique=True)):
            flows.append({"from": source, "to": name, "refresh": draw(period)})
        for target in draw(st.lists(learner, min_size=1, max_size=3, unique=True)):
            flows.append({"from": name, "to": target, "objective": "kl"})
    return {"agents": agents, "consensus": consensus, "flows": flows}


def tried(plan, mesh):
    """The plan, or None where the mesh is refused for a reason that a random graph may give."""
    try:
        return plan(mesh)
    except MeshError as error:
        assert error.what.startswith(REFUSALS) and error.where and error.instead
        return None


@settings(max_examples=80, deadline=None)
@given(meshes())
def test_stages_hold_what_they_promise(plan, mesh):
    made = tried(plan, mesh)
    if made is None:
        return
    stage = {weight_set: each for each in made.stages for weight_set in each.weights}
    assert (
        sorted(stage)
        == sorted(made.trainable)
        == sorted(weight_set for each in made.stages for weight_set in each.weights)
    )
    readers = {name: [edge.target for edge in node.readers] for name, node in made.consensus.items()}
    for edge in made.edges:
        source = stage.get(made.owner.get(edge.source))
        for target in readers.get(edge.target, [edge.target]):
            end = stage.get(made.owner[target])
            if source is None or end is None:
                continue
            if edge.refresh == "once":
                assert source.generation < end.generation
            else:
                assert source is end
    by_name = {each.name: each for each in made.stages}
    for each in made.stages:
        assert each.generation == max((by_name[name].generation + 1 for name in each.waits), default=0)
    assert [each.generation for each in made.stages] == sorted(each.generation for each in made.stages)


@settings(max_examples=80, deadline=None)
@given(meshes())
def test_steps_run_in_an_order_that_dependencies_allow(plan, mesh):
    made = tried(plan, mesh)
    for phase in [phase for stage in made.stages for phase in stage.phases.values()] if made else ():
        position = {op: number for number, op in enumerate(phase.ops)}
        assert len(position) == len(phase.ops) == sum(map(len, phase.levels))
        for op, before in phase.after.items():
            assert all(position[earlier] < position[op] for earlier in before)
        for edge in phase.edges:
            forward = next(op for op in phase.ops if op[:3] == ("f", edge.target, edge.stream))
            update = next(op for op in phase.ops if op[:2] == ("u", made.owner[edge.target]))
            assert position[forward] < position[update]


@settings(max_examples=80, deadline=None)
@given(meshes(), st.randoms(use_true_random=False))
def test_the_order_of_flows_changes_no_stage(plan, mesh, shuffle: random.Random):
    flows = list(mesh["flows"])
    shuffle.shuffle(flows)
    one, other = tried(plan, mesh), tried(plan, {**mesh, "flows": flows})
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert [(s.generation, s.weights) for s in one.stages] == [(s.generation, s.weights) for s in other.stages]


@settings(max_examples=40, deadline=None)
@given(meshes())
def test_networkx_sees_one_edge_for_every_pair_of_a_flow(plan, mesh):
    made = tried(plan, mesh)
    if made is None:
        return
    graph = made.graph()
    assert graph.number_of_edges() == len(made.edges) >= len(mesh["flows"])
    assert set(graph) == {*mesh["agents"], *mesh["consensus"], *(edge.source for edge in made.edges)}
    assert all(graph.edges[edge.source, edge.target, edge.id]["edge"] is edge for edge in made.edges)


def test_a_list_means_every_pair_of_different_nodes(plan):
    names = ["a", "b", "c"]
    made = plan({"agents": dict.fromkeys(names), "flows": [{"from": names, "to": names, "objective": "kl"}]})
    assert sorted(str(edge) for edge in made.edges) == sorted(f"{x} -> {y}" for x in names for y in names if x != y)


def test_a_party_is_replicated_and_named_as_a_whole(plan):
    made = plan(
        {
            "agents": {"party": {"count": 12}, "s": {}},
            "consensus": {"c": "mean"},
            "flows": [{"from": "party[*]", "to": "c"}, {"from": "c", "to": "s", "objective": "kl"}],
            "streams": {"own": {"shards": {"by": "iid", "of": ["party[*]"]}}},
            "placement": {"left": ["party[*]"], "right": ["s"]},
        }
    )
    party = [f"party[{i}]" for i in range(12)]
    assert list(made.spec.agents) == [*party, "s"]
    assert [edge.source for edge in made.consensus["c"].inputs] == party
    assert made.spec.streams["own"].shards.of == party
    assert made.hosts == {"left": party, "right": ["s"]}


@pytest.mark.parametrize("refresh", ["step", "round", "epoch", "10 steps"])
def test_any_refresh_but_once_binds_a_teacher_that_trains(plan, refresh):
    flows = [
        {"from": "labels", "to": "t", "objective": "ce"},
        {"from": "t", "to": "s", "objective": "kl", "refresh": refresh},
    ]
    assert [stage.weights for stage in plan({"agents": {"t": {}, "s": {}}, "flows": flows}).stages] == [["s", "t"]]


def test_a_frozen_teacher_is_in_no_stage_and_may_be_live(plan):
    made = plan(
        {
            "agents": {"t": {"update": "frozen"}, "s": {}},
            "flows": [{"from": "t", "to": "s", "objective": "kl", "refresh": "step"}],
        }
    )
    assert [stage.weights for stage in made.stages] == [["s"]] and made.stage_of("t") is None
    assert made.stages[0].phases["main"].text() == "f.s f.t | u.s"


def test_weights_are_shared_through_any_number_of_agents(plan):
    made = plan({"agents": {"a": {}, "b": {"weights_of": "a"}, "c": {"weights_of": "b"}}})
    assert made.owner == {"a": "a", "b": "a", "c": "a"} and made.stages[0].agents == ["a", "b", "c"]
