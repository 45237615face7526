"""A transformer that is pruned before it trains goes out smaller, and is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import text_meshes
import torch
from transformers import AutoModelForSequenceClassification

import kdmesh
from kdmesh.engine.beginning import begun_from
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse


def test_a_smaller_transformer_loads_anywhere_and_answers_as_was_measured(tmp_path: Path, texts: Path) -> None:
    fields = {
        "name": "whole", "data": {"dataset": {"text": {"path": str(texts), "label": "label"}}},
        "text": {"max_length": 24}, "train": {"steps": 4, "batch_size": 16},
        "agents": {"s": {"model": text_meshes.bert(layers=3)}},
    }  # fmt: skip
    run_once(Request(parse(fields), "inline", out=tmp_path))
    (begun_,) = tmp_path.glob("whole/*/agents/s")
    model = {"hf": {"path": str(begun_), "max_length": 24}}
    prune = [{"layers": {"drop": [1]}}, {"neurons": {"share": 0.5}}]
    fields |= {"name": "small", "agents": {"s": {"model": model, "prune": prune}}}
    run_once(Request(parse(fields), "inline", out=tmp_path))
    (folder,) = tmp_path.glob("small/*/agents/s")
    summary = json.loads((folder.parents[1] / "summary.json").read_text(encoding="utf-8"))
    after = summary["agents"]["s"]["pruned"]["after"]
    assert not [note for note in summary["notes"] if "differ" in note]
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    assert (loaded.config.num_hidden_layers, loaded.config.intermediate_size) == (2, 16)
    assert sum(one.numel() for one in loaded.parameters()) == after == summary["agents"]["s"]["parameters"]
    size, whole = (sum(f.stat().st_size for f in one.glob("*.safetensors")) for one in (folder, begun_))
    assert size < whole
    from_run = kdmesh.load(folder)
    asked = ["the old cat", "some red bird"]
    tokens = from_run.tokenizer(asked, return_tensors="pt", padding=True)
    with torch.no_grad():
        assert torch.allclose(from_run(asked), loaded.eval()(**tokens).logits, atol=1e-5)
    again = begun_from(parse(fields), folder.parents[1], "--from")
    begun = begun_from(parse(fields), begun_.parents[1], "--from")
    assert begun[0].agents == parse(fields).agents, "what names that folder itself begins with it all the same"
    fields["agents"]["s"]["model"] = {"hf": {"path": str(folder)}}
    assert begun_from(parse(fields), begun_.parents[1], "--from")[1] == [], "that run has pruned nothing"
    assert len(again[1]) == 1, "what would be pruned twice is said"
    before = summary["agents"]["s"]["pruned"]["before"]
    assert f"s was pruned in {folder.parents[1]}, {before:,} parameters to {after:,}, and" in again[1][0]
