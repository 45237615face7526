"""Meshes that name the offers, run by kdmesh with this package installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from kdmesh import Mesh, MeshError

from kdmesh_logit.offers import CONSENSUS, OBJECTIVES

MLP = {"mlp": {"hidden": [16]}}
RUNS = [
    ({"dkd": {"beta": 2}}, "mean", "probs"),
    ({"dist": {"temperature": 4}}, "mean", "probs"),
    ({"standardised_kl": {"faithful": "code"}}, "mean", "logits"),
    ("kl", "kdcl_min_logit", "logits"),
    ("kl", {"kdcl_linear": {"iterations": 4}}, "logits"),
]


def three(objective="kl", consensus="mean", stream="train", **how):
    """A student of two teachers; 300 digits."""
    mesh = Mesh(
        data={"dataset": "digits", "test": 400, "train": 300},
        streams={stream: how} if how else {},
        train={"epochs": 4, "batch_size": 16, "optimizer": {"adamw": {"lr": 1e-2}}},
    )
    for name in ("a", "b", "s"):
        mesh.agent(name, MLP)
    more = {"objective": objective, "consensus": consensus, "stream": stream}
    mesh.connect("ensemble", teachers=["a", "b"], student="s", **more)
    return mesh


@pytest.mark.parametrize(("objective", "consensus", "space"), RUNS)
def test_a_student_learns_from_two_teachers(objective, consensus, space):
    mesh = three(objective, consensus)
    assert [node.space for node in mesh.plan().consensus.values()] == [space]
    one, plain = mesh.run(backend="inline"), three().run(backend="inline")
    assert one["s"].metrics["test"]["accuracy"] > 0.5  # of ten digits, after 72 steps
    assert one["s"].weights_sha256 != plain["s"].weights_sha256
    assert one["a"].weights_sha256 == plain["a"].weights_sha256


@pytest.mark.parametrize(
    ("objective", "consensus", "who"),
    [("dkd", "mean", "objective 'dkd'"), ("kl", "kdcl_linear", "rule 'kdcl_linear'"), ("kl", "kdcl_min_logit", "rule")],
)
def test_what_needs_labels_is_refused_where_there_are_none(objective, consensus, who):
    with pytest.raises(MeshError, match=f"{who}.* needs labels"):
        three(objective, consensus, stream="silent", labels=False).plan()


@pytest.mark.parametrize("offer", [*OBJECTIVES, *CONSENSUS], ids=lambda offer: offer.name)
def test_settings_are_checked_where_they_stand(offer):
    with pytest.raises(MeshError, match="nonsense"):
        three(**{"objective" if offer in OBJECTIVES else "consensus": {offer.name: {"nonsense": 1}}}).plan()


def test_the_command_line_lists_the_offers_under_this_package():
    done = subprocess.run([sys.executable, "-m", "kdmesh", "plugins", "--json"], capture_output=True, check=True)
    found = {row["name"] for row in json.loads(done.stdout) if row.get("dist", "").startswith("kdmesh-logit")}
    assert found == {offer.name for offer in (*OBJECTIVES, *CONSENSUS)}
