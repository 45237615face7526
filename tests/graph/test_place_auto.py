"""`placement: auto` asks plugins; the built-in answer comes last."""

from __future__ import annotations

import pytest

from kdmesh.builtin import plugin as builtin
from kdmesh.errors import MeshError, RunFailed
from kdmesh.graph.plan import make_plan
from kdmesh.hookspecs import hookimpl
from kdmesh.plugins import Registry
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


def hosts(*plugins):
    return make_plan(MeshSpec.model_validate(MESH), Registry([builtin, *plugins])).hosts


def test_without_a_plugin_everyone_shares_a_host():
    assert hosts() == {"host0": ["a", "b", "c"]}


def test_a_plugin_answers_from_groups_that_must_stay_together():
    class Places:
        @hookimpl
        def kdmesh_place_agents(self, groups, resources):
            assert resources["cpus"] >= 1
            return {f"h{number}": agents for number, agents in enumerate(groups)}

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

    with pytest.raises(MeshError, match="a, c must share a host"):
        hosts(Parts())


def test_a_plugin_that_raises_is_named():
    class Raises:
        @hookimpl
        def kdmesh_place_agents(self):
            raise OSError("no cluster")

    with pytest.raises(RunFailed, match="failed in kdmesh_place_agents: OSError: no cluster"):
        hosts(Raises())
