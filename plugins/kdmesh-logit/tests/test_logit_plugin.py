"""The offers: found by the registry, planned by name, and lazy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from kdmesh.engine.launch import Request, run_once
from kdmesh.errors import MeshError
from kdmesh.graph.plan import make_plan
from kdmesh.plugins import Registry, registry
from kdmesh.spec import MeshSpec

from kdmesh_logit import plugin
from kdmesh_logit.offers import CONSENSUS, OBJECTIVES

ON_TRANSFER = {"teachers": ["a", "b"], "student": "s", "objective": "dkd", "stream": "hidden"}
MLP = {"model": {"mlp": {"hidden": [8]}}}


@pytest.fixture(scope="module")
def offered():
    return Registry({*registry().manager.get_plugins(), plugin})


def mesh(objective, consensus="mean"):
    return MeshSpec.model_validate(
        {
            "name": "three",
            "data": {"dataset": "digits"},
            "streams": {"hidden": {"labels": False}},
            "agents": {"a": MLP, "b": MLP, "s": MLP},
            "connect": [
                {"ensemble": {"teachers": ["a", "b"], "student": "s", "consensus": consensus, "objective": objective}}
            ],
            "train": {"epochs": 5, "batch_size": 64, "optimizer": {"adamw": {"lr": 1e-2}}},
        }
    )


@pytest.mark.parametrize("offer", [*OBJECTIVES, *CONSENSUS], ids=lambda offer: offer.name)
def test_every_offer_is_found_and_makes_its_thing(offered, offer):
    assert offered.find(offer.kind, offer.name) is offer
    assert offer.make().__class__.__name__ == offer.factory.partition(":")[2]
    with pytest.raises(MeshError, match="unknown"):
        offered.check(offer.kind, offer.name, {"nonsense": 1})


@pytest.mark.parametrize(
    ("objective", "space"), [({"dist": {"temperature": 4}}, "probs"), ("dkd", "probs"), ("standardised_kl", "logits")]
)
def test_a_mesh_names_an_objective(offered, objective, space):
    plan = make_plan(mesh(objective), offered)
    assert [node.space for node in plan.consensus.values()] == [space]


@pytest.mark.parametrize("rule", ["kdcl_min_logit", {"kdcl_linear": {"iterations": 4}}])
def test_a_mesh_names_a_rule(offered, rule):
    (node,) = make_plan(mesh("kl", rule), offered).consensus.values()
    assert (node.space, node.needs_labels) == ("logits", True)


def test_dkd_trains_with_the_labels_of_its_batch_and_is_refused_where_there_are_none(monkeypatch):
    for offer in OBJECTIVES:
        monkeypatch.setitem(registry()._offers["objectives"], offer.name, offer)
    summary, _, _ = run_once(Request(mesh({"dkd": {"beta": 2}}), "inline"))
    assert summary["agents"]["s"]["metrics"]["test"]["accuracy"] > 0.5
    unlabelled = mesh("dkd").model_copy(
        update={"connect": [mesh("dkd").connect[0].model_copy(update={"config": ON_TRANSFER})]}
    )
    with pytest.raises(MeshError, match="objective 'dkd' needs labels"):
        make_plan(unlabelled, registry())


def test_reading_the_offers_imports_no_torch():
    code = "import kdmesh_logit.plugin as p; p.kdmesh_objectives(); p.kdmesh_consensus(); print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.strip() == "False"
