"""Texts are chosen, too: by the mean over their words of what agents say, and by the tokens that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import bert, gpt

import kdmesh
from kdmesh.selection.select import select

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "classification": ({}, {"label": "label"}, bert),
    "token_classification": ({"task": "token_classification"}, {"spans": "spans"}, bert),
    "language_modelling": ({"task": "language_modelling"}, {}, gpt),
}


@pytest.mark.parametrize("case", CASES)
def test_texts_are_chosen_by_their_words(case: str, texts: Path, tmp_path: Path) -> None:
    task, columns, model = CASES[case]
    agents = {"a": model(16), "b": model(16, 2), "s": model(8)}
    fields = {**task, "data": {"dataset": {"text": {"path": str(texts), **columns}}}}
    trained = kdmesh.Mesh(
        **fields, agents={name: {"model": one} for name, one in agents.items()},
        flows=[{"from": "labels", "to": "abs"[at], "objective": "ce"} for at in range(3)],
        train={"epochs": 1, "batch_size": 16},
    ).run(backend="inline", out=tmp_path, store="off")  # fmt: skip
    assert trained.folder is not None
    told: dict[str, Any] = {
        name: {"model": {"hf": {"path": str(trained.folder / "agents" / name), "max_length": 48}}} for name in agents
    }
    told["a"]["update"] = told["b"]["update"] = "frozen"
    flows = [{"from": name, "to": "s", "objective": "kl"} for name in "ab"]
    plan = kdmesh.Mesh(**fields, agents=told, flows=flows).plan()
    by: dict[str, dict[str, Any]] = {"disagreement": {}, "teachability": {"k": 1}, "loss": {}, "diversity": {}}
    chosen, record = select(plan, by, 10, student="s", store="off")
    assert len(chosen.ids) == 10 == len(record["samples"]) and set(chosen.scores) == set(by)
    assert all(bool((scores >= -1e-9).all()) and len(scores) == 10 for scores in chosen.scores.values())
    again = select(plan, by, 10, student="s", store=str(tmp_path / "store"))[0]
    assert torch.equal(again.ids, chosen.ids)
    warm = select(plan, by, 10, student="s", store=str(tmp_path / "store"))[0]
    assert torch.equal(warm.ids, chosen.ids) and torch.equal(warm.scores["loss"], chosen.scores["loss"])
