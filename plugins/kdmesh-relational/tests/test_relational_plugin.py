"""Meshes that name the objectives, run by kdmesh with this package installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from kdmesh import Mesh, MeshError

from kdmesh_relational.offers import OBJECTIVES

MLP, WIDE = {"mlp": {"hidden": [16]}}, {"mlp": {"hidden": [32]}}
VIT = {"vit": {"dim": 16, "heads": 2, "depth": 1}}
RUNS = {
    "sp": ("sp", WIDE, MLP),
    "rkd": ({"rkd": {"angle": 2}}, WIDE, MLP),
    "rkd as code": ({"rkd": {"faithful": "code", "distance": 25, "angle": 50}}, WIDE, MLP),
    "minilm": ({"minilm": {"heads": 2}}, VIT, VIT),
    "crd": ({"crd": {"dim": 16}}, WIDE, MLP),
    "crd as paper": ({"crd": {"dim": 16, "count": 8, "negatives": "other_sample", "faithful": "paper"}}, WIDE, MLP),
}


def two(objective, wide=WIDE, small=MLP, stream="train", **how):
    """A student learns from a teacher's answers, and from a layer if there is an objective; 300 digits."""
    mesh = Mesh(
        data={"dataset": "digits", "test": 400, "train": 300},
        streams={stream: how} if how else {},
        train={"epochs": 4, "batch_size": 16, "optimizer": {"adamw": {"lr": 1e-2}}},
    )
    mesh.agent("wide", wide)
    mesh.agent("small", small)
    mesh.connect("ensemble", teachers="wide", student="small")
    if objective is not None:
        more = {"tap": "layers.0", "weight": 0.1, "stream": stream}
        mesh.connect("ensemble", teachers="wide", student="small", objective=objective, **more)
    return mesh


@pytest.mark.parametrize(("objective", "wide", "small"), RUNS.values(), ids=RUNS)
def test_a_student_learns_from_a_layer_too(objective, wide, small):
    one, again, without = (two(what, wide, small).run(backend="inline") for what in (objective, objective, None))
    assert one["small"].metrics["test"]["accuracy"] > 0.3  # of ten digits, after 72 steps
    assert one["small"].weights_sha256 == again["small"].weights_sha256
    assert one["small"].weights_sha256 != without["small"].weights_sha256
    assert one["wide"].weights_sha256 == without["wide"].weights_sha256


def test_crd_wants_labels_and_layers():
    with pytest.raises(MeshError, match="objective 'crd' needs labels"):
        two("crd", stream="silent", labels=False).plan()
    (edge,) = [edge for edge in two("crd").plan().edges if edge.form == "hidden"]
    assert (edge.source, edge.target) == ("wide", "small")


def test_one_class_alone_has_no_negatives():
    with pytest.raises(MeshError, match="all samples of this stream are of one class"):
        two("crd", stream="ones", only=[1]).run(backend="inline")


@pytest.mark.parametrize("offer", OBJECTIVES, ids=lambda offer: offer.name)
def test_settings_are_checked_where_they_stand(offer):
    with pytest.raises(MeshError, match="nonsense"):
        two({offer.name: {"nonsense": 1}}).plan()


def test_the_command_line_lists_the_offers_under_this_package():
    done = subprocess.run([sys.executable, "-m", "kdmesh", "plugins", "--json"], capture_output=True, check=True)
    found = {row["name"] for row in json.loads(done.stdout) if row.get("dist", "").startswith("kdmesh-relational")}
    assert found == {offer.name for offer in OBJECTIVES}
