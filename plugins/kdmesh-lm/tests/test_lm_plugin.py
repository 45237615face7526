"""Meshes that name the offers, run by kdmesh with this package installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from kdmesh import Mesh, MeshError

from kdmesh_lm.offers import GATES, OBJECTIVES

CONFIG = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16}  # fmt: skip
MODEL = {"hf": {"config": CONFIG, "tokenizer": {"characters": {}}}}
SETTINGS = [{"adaptive_kl": {"mu": 0.6}}, {"entropy_aware_kl": {"threshold": 1.5}}, {"mass_weighted_kl": {"k": 3}}]


def on_policy(objective):
    """A student on its own answers, of a frozen teacher."""
    return Mesh(
        task="language_modelling",
        data={"dataset": {"sums": {"below": 6}}},
        text={"max_length": 16},
        agents={"t": {"model": MODEL, "update": "frozen"}, "s": {"model": MODEL}},
        streams={"rollouts": {"generated_by": "s", "prompts": "train", "sampling": {"max_new_tokens": 3}}},
        flows=[{"from": "t", "to": "s", "stream": "rollouts", "objective": objective}],
        train={"steps": 3, "batch_size": 8},
    )


@pytest.mark.parametrize("objective", SETTINGS, ids=lambda one: next(iter(one)))
def test_a_student_learns_on_what_it_writes(objective):
    one, other = on_policy(objective).run(backend="inline"), on_policy("reverse_kl").run(backend="inline")
    assert one["s"].weights_sha256 != other["s"].weights_sha256
    assert one["t"].weights_sha256 == other["t"].weights_sha256


@pytest.mark.parametrize("offer", OBJECTIVES, ids=lambda offer: offer.name)
def test_settings_are_checked_where_they_stand(offer):
    with pytest.raises(MeshError, match="nonsense"):
        on_policy({offer.name: {"nonsense": 1}}).plan()


def test_the_command_line_lists_the_offers_under_this_package():
    done = subprocess.run([sys.executable, "-m", "kdmesh", "plugins", "--json"], capture_output=True, check=True)
    found = {row["name"] for row in json.loads(done.stdout) if row.get("dist", "").startswith("kdmesh-lm")}
    assert found == {offer.name for offer in (*OBJECTIVES, *GATES)}
