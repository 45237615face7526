"""`check` tries meshes of texts on stand-ins too: logits of classes, of tags and of tokens, and layers of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from text_meshes import bert, classified, gpt, modelled, write

from kdmesh.engine import trial
from kdmesh.engine.check import examine
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse


def taught(path: Path, task: str, objective: Any, tap: str = "", **more: Any) -> dict[str, Any]:
    """A teacher and a student, which learns by one more objective."""
    model = gpt if task == "language_modelling" else bert
    dataset = {"path": str(path), "text": "text"}
    if task == "classification":
        dataset["label"] = "label"
    if task == "token_classification":
        dataset["spans"] = "spans"
    flow = {"from": "t", "to": "s", "objective": objective}
    return {
        "task": task,
        "data": {"dataset": {"text": dataset}},
        "agents": {"t": {"model": model(24)}, "s": {"model": model(16, **more)}},
        "flows": [
            {"from": "labels", "to": ["t", "s"], "objective": "ce"},
            {**flow, "tap": {"of": tap, "to": tap}} if tap else flow,
        ],
        "train": {"epochs": 1, "batch_size": 8},
    }


MESHES: dict[str, Any] = {
    "classes": classified,
    "tokens": modelled,
    "tags": lambda path: taught(path, "token_classification", "kl"),
    "hidden": lambda path: taught(path, "classification", "hint", "hidden.1"),
    "pooled": lambda path: taught(path, "classification", "hint", "pooled.1"),
    "attention": lambda path: taught(path, "classification", "attention_kl", "attention.0"),
    "unlike tokens": lambda path: taught(path, "language_modelling", "span", vocabulary=None),
    "sorted tokens": lambda path: taught(path, "language_modelling", "uld", vocabulary=None),
}


@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_of_texts_is_tried_once_and_small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = trial._run
    monkeypatch.setattr(trial, "_run", lambda plan, found, rows: (made.append(rows), real(plan, found, rows)))
    spec = parse(MESHES[name](write(tmp_path)))
    found = examine(make_plan(spec, registry()))
    assert made == [trial.TEXTS]
    assert not [note for note in found.notes if "random" in note]


def test_texts_of_too_many_logits_are_not_tried_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "WIDE", 100)
    monkeypatch.setattr(trial, "_run", lambda *given: pytest.fail("it is tried"))
    found = examine(make_plan(parse(modelled(write(tmp_path))), registry()))
    assert "no trial on random outputs: 3 texts make more than 100 logits" in found.notes
