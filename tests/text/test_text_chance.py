"""Models of texts that are at chance are named, with advice that is about texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from text_meshes import bert, modelled

import kdmesh

IDLE = {"steps": 1, "batch_size": 8, "optimizer": {"sgd": {"lr": 1e-12}}}
ADVICE = "is the learning rate right, and are there updates enough?"


def chance(mesh: dict[str, Any]) -> list[str]:
    return [n for n in kdmesh.Mesh(**mesh).run(backend="inline").summary["notes"] if n.startswith("at chance")]


def alone(path: Path, task: str, column: str) -> dict[str, Any]:
    """One model that learns nothing."""
    return {
        "task": task,
        "data": {
            "dataset": {"text": {"path": str(path), **({"spans": column} if column == "spans" else {"label": column})}}
        },
        "agents": {"s": {"model": bert(8)}},
        "flows": [{"from": "labels", "to": "s", "objective": "ce"}],
        "train": IDLE,
    }


def test_a_classifier_of_texts_is_not_told_to_scale_its_features(texts: Path) -> None:
    (note,) = chance(alone(texts, "classification", "label"))
    assert note.startswith("at chance, no better on test than the most frequent class (0.") and note.endswith(ADVICE)


def test_chance_of_a_tagger_is_the_share_of_the_most_frequent_tag(texts: Path) -> None:
    """Most words have no tag: to say so of each is right for most of them."""
    (note,) = chance(alone(texts, "token_classification", "spans"))
    said = float(note.partition("most frequent tag (")[2].partition(")")[0])
    assert 0.5 < said < 1 and note.endswith(ADVICE)


def test_a_language_model_is_not_judged_by_its_accuracy(texts: Path) -> None:
    assert not chance(modelled(texts, train=IDLE))
