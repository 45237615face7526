"""`placement: auto` asks plugins; what none answers is measured when the mesh runs, and together until then."""

from __future__ import annotations

import pytest

from kdmesh.builtin import plugin as builtin
from kdmesh.errors import MeshError, RunFailed
from kdmesh.graph.hosts import settled
from kdmesh.graph.planner import make_plan
from kdmesh.hookspecs import hookimpl
from kdmesh.plugins import Registry
from kdmesh.report.plan_text import plan_text
from kdmesh.spec import MeshSpec

MESH = {
    "agents": {
        "a": {"model": {"mlp": {"hidden": [4]}}},
        "b": {"model": {"mlp": {"hidden": [4]}}},
        "c": {"weights_of": "a"},
    },
    "flows": [
        {"from": "labels", "to": ["a", "b"], "objective": "ce"},
        {"from": "a", "to": "b", "objective": "kl", "refresh": "step"},
    ],
    "placement": "auto",
}


def planned(*plugins, **fields):
    return make_plan(MeshSpec.model_validate({**MESH, **fields}), Registry([builtin, *plugins]))


def hosts(*plugins):
    return planned(*plugins).hosts


class Places:
    @hookimpl
    def kdmesh_place_agents(self, groups, resources):
        assert resources["cpus"] >= 1
        return {f"h{number}": agents for number, agents in enumerate(groups)}


def test_without_a_plugin_everyone_shares_a_host_until_it_is_measured():
    assert hosts() == {"host0": ["a", "b", "c"]}
    assert planned().spec.placement == "auto" == MeshSpec.model_validate({"agents": {"a": {}}}).placement


def test_a_plugin_s_answer_is_pinned():
    made = planned(Places())
    assert made.spec.placement == made.hosts == {"h0": ["a", "c"], "h1": ["b"]}
    assert planned(placement=made.spec.placement).hosts == made.hosts


def test_what_a_private_stream_joins_is_one_group_for_the_plugin():
    flow = {"from": "a", "to": "b", "objective": "kl", "stream": "ward"}
    flows = [*MESH["flows"][:1], flow]
    made = planned(Places(), flows=flows, streams={"ward": {"of": "train", "private": True}})
    assert made.hosts == {"h0": ["a", "b", "c"]}


def test_a_plugin_answers_from_groups_that_must_stay_together():
    class Silent:
        @hookimpl
        def kdmesh_place_agents(self):
            return None

    assert hosts(Places(), Silent()) == {"h0": ["a", "c"], "h1": ["b"]}


def test_an_answer_that_parts_what_shares_weights_is_refused():
    class Parts:
        @hookimpl
        def kdmesh_place_agents(self, mesh):
            return {name: [name] for name in mesh.agents}

    with pytest.raises(MeshError, match=r"a, c must share a host.* \(plugin \w+, kdmesh_place_agents\)"):
        hosts(Parts())


def test_a_plugin_that_raises_is_named():
    class Raises:
        @hookimpl
        def kdmesh_place_agents(self):
            raise OSError("no cluster")

    with pytest.raises(RunFailed, match="failed in kdmesh_place_agents: OSError: no cluster"):
        hosts(Raises())


@pytest.mark.parametrize("answer", [["a"], {"h": "a"}, {"h": [1]}, {1: ["a"]}, "spread"])
def test_what_is_no_placement_is_refused_with_who_gave_it(answer):
    class Wrong:
        @hookimpl
        def kdmesh_place_agents(self):
            return answer

    said = r"plugin \w+ failed in kdmesh_place_agents: ValueError: it gave .*, not lists of agents by host"
    with pytest.raises(RunFailed, match=said):
        hosts(Wrong())


def test_the_plan_says_what_is_measured_and_what_cannot_be_parted():
    page = plan_text(planned())
    assert "host0: a, b, c\n  auto: measured when it runs on Ray, until then together" in page
    assert "share a host: a, c, since they share the weights of a" in page
    assert "measured" not in plan_text(planned(placement="together")) + plan_text(planned(Places()))


def test_a_host_may_say_what_it_takes():
    asked = {"agents": ["a", "c"], "cpus": 2, "gpus": 0.5, "resources": {"tpu": 1}}
    made = planned(placement={"left": asked, "right": ["b"]})
    assert made.hosts == {"left": ["a", "c"], "right": ["b"]}
    dumped = made.resolved().model_dump(mode="json", by_alias=True, exclude_none=True)
    assert dumped["placement"] == {"left": asked, "right": ["b"]}
    assert MeshSpec.model_validate(dumped).placement == made.spec.placement


def test_a_run_that_has_measured_asks_again_and_kdmesh_answers_last():
    class Waits:
        @hookimpl
        def kdmesh_place_agents(self, measured):
            return measured and {"swapped": ["b"], "rest": ["a", "c"]}

    best = {"host0": ["a", "c"], "host1": ["b"]}
    plain, asked = Registry([builtin]), Registry([builtin, Waits()])
    plan = make_plan(MeshSpec.model_validate(MESH), asked)
    assert plan.spec.placement == "auto"
    assert settled(plan, 2, best, plain) == best
    assert settled(plan, 2, best, asked) == {"swapped": ["b"], "rest": ["a", "c"]}
    with pytest.raises(MeshError, match="a, c must share a host"):
        settled(plan, 2, {"host0": ["a"], "host1": ["b", "c"]}, plain)
