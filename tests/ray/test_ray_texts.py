"""Hosts are killed while agents write texts and learn of them: what comes out has the bits of an unbroken run."""

from __future__ import annotations

import json

import pytest
from commands import kill

from kdmesh.engine import teach
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse

pytestmark = pytest.mark.ray

CONFIG = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 1, "intermediate_size": 16, "max_position_embeddings": 24}  # fmt: skip
MODEL = {"hf": {"config": CONFIG, "tokenizer": {"characters": {}}}}
HOSTS = {"left": ["s"], "right": ["t", "u"]}


def mesh(placement):
    """A student writes anew every three steps, what a filter keeps is learned; a teacher writes once."""
    writes = {"prompts": "train", "sampling": {"max_new_tokens": 3}}
    return {
        "task": "language_modelling",
        "data": {"dataset": {"sums": {"below": 7}}, "train": 24},
        "agents": {"t": {"model": MODEL, "update": "frozen"}, "s": {"model": MODEL}, "u": {"model": MODEL}},
        "streams": {
            "own": {**writes, "generated_by": "s", "refresh": "3 steps", "keep": [{"pattern": {"match": "[0-5]"}}]},
            "answers": {**writes, "generated_by": "t", "refresh": "once"},
        },
        "flows": [
            {"from": "t", "to": ["s", "u"], "stream": "own", "objective": "reverse_kl"},
            {"from": "labels", "to": "u", "stream": "answers", "objective": "ce"},
        ],
        "train": {"epochs": 2, "batch_size": 4, "optimizer": {"adamw": {"lr": 3e-3}}},
        "text": {"max_length": 24},
        "placement": placement,
    }


def outcome(summary, folder):
    """Weights, figures, counts of texts, and the texts themselves without the time."""
    (root,) = folder.glob("*/*")
    texts = {}
    for path in sorted((root / "streams").iterdir()):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        texts[path.name] = [{name: value for name, value in line.items() if name != "time"} for line in lines]
    agents = {name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()}
    return agents, summary["streams"], texts


def test_hosts_that_write_or_read_texts_may_be_lost(ray_session, tmp_path, monkeypatch):
    monkeypatch.setattr(teach, "WINDOW", 2)
    inline = run_once(Request(parse(mesh("together")), "inline", out=tmp_path / "inline"))[0]
    expected = outcome(inline, tmp_path / "inline")
    assert [len(lines) for lines in expected[2].values()] == [24, 48]
    spec = parse(mesh(HOSTS))
    backend, inner, runs, lost = ray_session.backend, ray_session.backend.call, [], []

    def call(host, method, *args, **options):
        runs.extend([host] if method == "run" else [])
        if len(runs) in (5, 13) and len(lost) < len(runs) // 5:
            lost.append(("left", "right")[len(lost)])  # who writes as it learns; who wrote once
            kill(backend._hosts[lost[-1]])
        return inner(host, method, *args, **options)

    monkeypatch.setattr(backend, "call", call)
    request = Request(spec, out=tmp_path / "ray", checkpoint_seconds=0)
    assert outcome(run_once(request, session=ray_session)[0], tmp_path / "ray") == expected
    assert lost == ["left", "right"]
