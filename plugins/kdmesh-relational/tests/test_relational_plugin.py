"""The offers: found by the registry, planned by name, and lazy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from kdmesh.errors import MeshError
from kdmesh.graph.plan import make_plan
from kdmesh.plugins import Registry, registry
from kdmesh.spec import MeshSpec

from kdmesh_relational import plugin
from kdmesh_relational.offers import OBJECTIVES

MLP = {"model": {"mlp": {"hidden": [8]}}}


@pytest.fixture(scope="module")
def offered():
    return Registry({*registry().manager.get_plugins(), plugin})


@pytest.mark.parametrize("offer", OBJECTIVES, ids=lambda offer: offer.name)
def test_every_offer_is_found_and_makes_its_thing(offered, offer):
    assert offered.find("objectives", offer.name) is offer
    assert offer.make().__class__.__name__ == offer.factory.partition(":")[2]
    with pytest.raises(MeshError, match="unknown"):
        offered.check("objectives", offer.name, {"nonsense": 1})


@pytest.mark.parametrize("objective", ["sp", {"rkd": {"faithful": "code"}}, {"minilm": {"heads": 2}}])
def test_a_mesh_names_an_objective_between_layers(offered, objective):
    spec = MeshSpec.model_validate(
        {
            "name": "two",
            "data": {"dataset": "digits"},
            "agents": {"teacher": MLP, "student": MLP},
            "connect": [
                {"ensemble": {"teachers": "teacher", "student": "student", "objective": objective, "tap": "layers.0"}}
            ],
            "train": {"epochs": 1, "batch_size": 64, "optimizer": {"adamw": {"lr": 1e-3}}},
        }
    )
    (edge,) = [edge for edge in make_plan(spec, offered).edges if edge.source == "teacher"]
    assert edge.form == "hidden"


def test_reading_the_offers_imports_no_torch():
    code = "import kdmesh_relational.plugin as p; p.kdmesh_objectives(); print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.strip() == "False"
