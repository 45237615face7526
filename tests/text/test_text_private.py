"""Models of transformers that train privately: gradients by sample of each kind are proved, or it is refused."""

from __future__ import annotations

import pytest
from text_meshes import bert, gpt, llama

from kdmesh.engine import accounts
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse


def mesh(texts, model, task="classification", objective="ce", **data):
    return {
        "task": task,
        "data": {
            "dataset": {"text": {"path": str(texts), **data}},
            "transfer": 0.2,
            **({"stratify": False} if "label" in data else {}),
        },
        "streams": {"mine": {"of": "train", "private": True, "size": 0.6}},  # the rest makes the tokenizer
        "agents": {"s": {"model": model, "train": {"private": {"noise_multiplier": 2.0, "max_grad_norm": 1.0}}}},
        "parties": {"clinic": {"agents": ["s"], "privacy": {"epsilon": 9, "delta": 1e-5, "adjacency": "zero_out"}}},
        "flows": [{"from": "labels", "to": "s", "objective": objective, "stream": "mine"}],
        "train": {"batch_size": 6, "steps": 3, "optimizer": {"adam": {"lr": 0.01}}},
    }


@pytest.mark.parametrize("model", [bert(), llama(), bert(lora={"rank": 2})], ids=["bert", "llama", "lora"])
def test_classifiers_train_privately_to_the_same_bits_again(texts, tmp_path, model):
    fields = mesh(texts, model, label="label")
    accounts.create(make_plan(parse(fields), registry()), tmp_path)
    runs = [run_once(Request(parse(fields), "inline", privacy=tmp_path))[0] for _ in range(2)]
    assert [run["privacy"]["clinic"]["answers"] for run in runs] == [3, 3]
    bits = {run["agents"]["s"]["weights_sha256"] for run in runs}
    assert len(bits) == 1 and all(bits)


def test_a_language_model_whose_last_layer_is_used_elsewhere_is_refused(texts):
    fields = mesh(texts, gpt(), "language_modelling")
    with pytest.raises(MeshError, match=r"agents.s.model: .*opacus 1.6.0"):
        examine(make_plan(parse(fields), registry()))
