"""Parties in the plan: hosts, where a consensus is formed, and what may not cross at every step."""

from __future__ import annotations

import pytest

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.parties.coordinating import refuse_apart
from kdmesh.plugins import registry
from kdmesh.spec.read import parse, read_mesh

MESH = {
    "data": {"dataset": "digits", "transfer": 0.5},
    "agents": {"a": {"model": "mlp"}, "b": {"model": "mlp"}, "s": {"model": "mlp"}},
    "parties": {"north": "a", "south": ["b"]},
    "consensus": {"c": "mean"},
    "flows": [
        {"from": ["a", "b"], "to": "c", "stream": "transfer"},
        {"from": "c", "to": "s", "objective": "kl"},
    ],
}


TAUGHT = {"from": "labels", "to": ["a", "b", "s"], "objective": "ce", "stream": "train"}


def plan(**more):
    return make_plan(parse({**MESH, **more}), registry())


def test_each_party_is_a_host_and_what_several_say_meets_at_the_coordinator():
    made = plan()
    assert made.hosts == {"north": ["a"], "south": ["b"], "coordinator": ["s"]}
    assert made.consensus["c"].home == made.evaluator("c") == "coordinator"


def test_what_one_party_combines_is_formed_there():
    made = plan(parties={"north": ["a", "b"]})
    assert made.consensus["c"].home == "north" == made.evaluator("c")
    assert made.away("c", "coordinator") and not made.away("c", "north")


def test_readers_elsewhere_are_sent_the_consensus():
    rounds = [{"rounds": {"students": ["a", "b"], "stream": "transfer", "rounds": 2}}]
    made = plan(flows=[], consensus={}, connect=rounds)
    assert [node.home for node in made.consensus.values()] == ["coordinator"]
    assert made.hosts["coordinator"] == ["s"]


def test_a_coordinator_without_work_is_no_host():
    made = plan(agents={"a": MESH["agents"]["a"], "b": MESH["agents"]["b"]}, consensus={}, flows=[
        {"from": "a", "to": "b", "objective": "kl", "stream": "transfer", "refresh": "once"},
    ])  # fmt: skip
    assert made.hosts == {"north": ["a"], "south": ["b"]}


def test_a_count_is_named_as_elsewhere():
    agents = {"clinic": {"model": "mlp", "count": 3}, "s": {"model": "mlp"}}
    flows = [{"from": ["clinic[*]"], "to": "c", "stream": "transfer"}, MESH["flows"][1]]
    made = plan(agents=agents, flows=flows, parties={"all": "clinic[*]"})
    assert made.hosts == {"all": ["clinic[0]", "clinic[1]", "clinic[2]"], "coordinator": ["s"]}


def test_the_long_form_has_the_same_parties():
    long = plan().resolved()
    again = make_plan(parse(long.dump()), registry())
    assert again.hosts == plan().hosts and long.parties["north"].agents == ["a"]


@pytest.mark.parametrize(
    ("more", "where", "said"),
    [
        ({"parties": {"north": "x"}}, "parties.north.agents", "unknown agent 'x'"),
        ({"parties": {"north": "a", "south": "a"}}, "parties.south.agents", "a is of north too"),
        ({"parties": {"north": ["a", "a"]}}, "parties.north.agents", "a is twice here"),
        ({"parties": {"coordinator": "a"}}, "parties.coordinator", "'coordinator' is who is of no party"),
        ({"placement": "spread"}, "placement", "`parties` say where each agent lives"),
        ({"parties": {"north": {"agents": []}}}, "parties.north.agents", "at least 1"),
        ({"parties": {"North": "a", "north": "b"}}, "parties", "differ in case alone"),
    ],
)
def test_bad_parties_are_named(more, where, said):
    with pytest.raises(MeshError, match=said) as error:
        plan(**more)
    assert error.value.where == where


@pytest.mark.parametrize(
    ("flows", "where", "said"),
    [
        ([{"from": "a", "to": "s", "objective": "kl", "stream": "transfer", "refresh": "step"}], "flows.0.refresh",
         "a -> s would cross from north to coordinator at each step"),
        ([{"from": ["a", "b"], "to": "c", "stream": "transfer", "refresh": "step"}, MESH["flows"][1]],
         "flows.0.refresh", "a -> c would cross from north to coordinator at each step"),
        ([{"from": "labels", "to": "s", "objective": "ce", "stream": "train",
           "gate": {"gap": {"of": "a"}}}], "flows.0", "a gate asks a, at north, at each step"),
    ],
)  # fmt: skip
def test_nothing_crosses_at_every_step(flows, where, said):
    with pytest.raises(MeshError, match=said) as error:
        plan(flows=[*flows, TAUGHT], consensus={"c": "mean"} if len(flows) == 2 else {})
    assert error.value.where.startswith(where)


def test_old_weights_do_not_leave_their_party():
    flows = [{"from": ["a", "b"], "to": ["a", "b"], "objective": "kl", "stream": "transfer", "refresh": "epoch",
              "stale": "snapshot"}]  # fmt: skip
    with pytest.raises(MeshError, match="stale: snapshot"):
        plan(flows=[*flows, TAUGHT], consensus={})


@pytest.mark.parametrize(
    ("node", "more", "said"),
    [
        ({"rule": "mean", "space": "loss"}, {}, "weighs what its readers' losses say"),
        ({"rule": "mean"}, {"refresh": "2 steps"}, "made anew at times that its readers declare"),
    ],
)
def test_a_consensus_that_only_its_readers_can_form_stays_in_one_party(node, more, said):
    flows = [
        {"from": ["a", "b"], "to": "c", "stream": "transfer", "refresh": "epoch"},
        {"from": "c", "to": ["a", "b"], "objective": "kl", **more},
    ]
    with pytest.raises(MeshError, match=said):
        plan(consensus={"c": node}, flows=[*flows, TAUGHT])


def test_a_consensus_of_another_s_that_is_formed_elsewhere_is_refused():
    flows = [
        {"from": ["a", "b"], "to": "inner", "stream": "transfer"},
        {"from": ["inner", "s"], "to": "c", "stream": "transfer"},
        {"from": "c", "to": "t", "objective": "kl"},
    ]
    agents = {**MESH["agents"], "t": {"model": "mlp"}}
    with pytest.raises(MeshError, match="c is formed at coordinator, of inner, which is formed at north"):
        plan(agents=agents, parties={"north": ["a", "b"], "west": ["t"]}, consensus={"inner": "mean", "c": "mean"},
             flows=flows)  # fmt: skip


OWN = {"parties": {"north": {"agents": "a", "data": "digits"}, "south": {"agents": "b", "data": "digits"}}}


@pytest.mark.parametrize(
    ("stream", "field"),
    [
        ({"of": "own", "only": [1]}, "only"),
        ({"of": "own", "without": [1]}, "without"),
        ({"of": "own", "where": {"digit": "1"}}, "where"),
        ({"of": "own", "shards": {"by": "class", "of": ["a"]}}, "shards.by"),
    ],
)
def test_nobody_chooses_among_samples_that_one_party_knows(stream, field):
    flows = [{"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "few"}, *MESH["flows"]]
    with pytest.raises(MeshError, match="nobody else knows which of them") as error:
        plan(**OWN, streams={"few": stream}, flows=flows)
    assert error.value.where == f"streams.few.{field}"


def test_what_is_made_on_own_samples_stays():
    flows = [{"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own"},
             {"from": "a", "to": "s", "objective": "kl", "stream": "own"}]  # fmt: skip
    with pytest.raises(MeshError, match="away from their agent"):
        plan(**OWN, flows=flows, consensus={})


def test_own_is_no_stream_of_a_mesh_whose_parties_have_none():
    flows = [{"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own"}, *MESH["flows"]]
    with pytest.raises(MeshError, match="unknown stream 'own'"):
        plan(flows=flows)


WEIGHTS = [
    {"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own"},
    {"from": ["a", "b"], "to": "s", "as": "weights", "refresh": "epoch", "discloses": "weights"},
    {"from": "s", "to": ["a", "b"], "as": "weights", "refresh": "epoch"},
]
SERVER = {"agents": {**MESH["agents"], "s": {"model": "mlp", "update": "merged"}}, "consensus": {}}


def test_weights_that_learned_on_own_samples_leave_where_their_flow_says_so():
    assert plan(**OWN, **SERVER, flows=WEIGHTS).merging.flows[0].discloses == "weights"
    silent = [WEIGHTS[0], {key: value for key, value in WEIGHTS[1].items() if key != "discloses"}, WEIGHTS[2]]
    with pytest.raises(MeshError, match="weights of a, which learned on the private stream 'own'") as error:
        plan(**OWN, **SERVER, flows=silent)
    assert error.value.where == "flows.1" and "discloses: weights" in error.value.instead


@pytest.mark.parametrize(
    ("flows", "said"),
    [
        ([WEIGHTS[0], WEIGHTS[1], {**WEIGHTS[2], "discloses": "weights"}], "weights of s tell others of no private"),
        ([WEIGHTS[0], {**WEIGHTS[1], "discloses": "prototypes"}, WEIGHTS[2]], "weights flow here, and no prototypes"),
        ([WEIGHTS[0], {"from": "a", "to": "s", "objective": "kl", "stream": "transfer", "discloses": "weights"}],
         "carries a signal, and no weights"),
        ([WEIGHTS[0], {"from": "a", "to": "s", "objective": "kl", "stream": "transfer", "discloses": "prototypes"}],
         "tells others of no private samples"),
    ],
)  # fmt: skip
def test_nothing_is_disclosed_where_nothing_is_private(flows, said):
    agents = SERVER if any(flow.get("as") == "weights" for flow in flows) else {"consensus": {}}
    with pytest.raises(MeshError, match=said) as error:
        plan(**OWN, **agents, flows=flows)
    assert error.value.where.endswith(".discloses")


def test_the_long_form_says_what_it_discloses():
    made = plan(**OWN, **SERVER, flows=WEIGHTS)
    assert [flow.discloses for flow in make_plan(made.resolved(), registry()).merging.flows[:2]] == ["weights"] * 2


def test_files_of_parties_are_found_from_the_mesh_s_folder(tmp_path):
    data = "{csv: {path: own.csv, label: y}}"
    (tmp_path / "mesh.yaml").write_text(
        "data: {dataset: {csv: {path: public.csv, label: y}}}\n"
        f"agents: {{a: {{model: mlp}}}}\nparties: {{north: {{agents: a, data: {data}}}}}\n"
    )
    found = read_mesh(tmp_path / "mesh.yaml").parties["north"].data
    assert found is not None and found.config["path"] == str(tmp_path / "own.csv")


@pytest.mark.parametrize(
    ("more", "where", "said"),
    [
        ({"consensus": {"c": {"rule": "mean", "history": "last"}}, "parties": {"north": ["a", "b"]}},
         "consensus.c.history", "c is formed at north, whose store"),
    ],
)  # fmt: skip
def test_what_is_only_simulated_is_refused_before_anyone_joins(more, where, said):
    with pytest.raises(MeshError, match=said) as error:
        refuse_apart(plan(**more))
    assert error.value.where == where
    refuse_apart(plan())
