"""Texts with a store: rows of samples and of tokens, with the same bits, and found only in the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from text_meshes import bert, gpt

import kdmesh

WORDS = {"task": "token_classification"}
MODELLED = {"task": "language_modelling"}
LABELS = {"label": "label"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Any, Any, dict[str, Any]]] = {
    "sentences": ({}, LABELS, bert(24), bert(16, 1), {"objective": "kl"}),
    "hidden": ({}, LABELS, bert(24), bert(16, 1), {"objective": "hint", "tap": {"of": "hidden.1", "to": "hidden.1"}}),
    "words": (WORDS, {"spans": "spans"}, bert(24), bert(16, 1), {"objective": "kl"}),
    "language": (MODELLED, {}, gpt(24), gpt(16), {"objective": "kl"}),
    "top k": (MODELLED, {}, gpt(24), gpt(16), {"objective": "kl", "signal": {"top_k": {"k": 4}}}),
}


def run(case: str, texts: Path, refresh: str, store: str | Path, batch: int = 8, teacher: Any = None) -> Any:
    more, columns, usual, student, flow = CASES[case]
    mesh = {
        **more,
        "data": {"dataset": {"text": {"path": str(texts), **columns}}},
        "agents": {"t": {"model": teacher or usual, "update": "frozen"}, "s": {"model": student}},
        "flows": [
            {"from": "labels", "to": "s", "objective": "ce"},
            {"from": "t", "to": "s", "refresh": refresh, **flow},
        ],
        "train": {"epochs": 2, "batch_size": batch},
    }
    return kdmesh.Mesh(**mesh).run(backend="inline", store=str(store)).summary


def said(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: (agent["weights_sha256"], agent["metrics"]) for name, agent in summary["agents"].items()}


@pytest.mark.parametrize("refresh", ["once", "step"])
@pytest.mark.parametrize("case", CASES)
def test_cold_and_warm_have_the_bits_of_no_store(case: str, refresh: str, texts: Path, tmp_path: Path) -> None:
    without, cold, warm = (run(case, texts, refresh, store) for store in ("off", tmp_path, tmp_path))
    assert said(without) == said(cold) == said(warm)
    assert warm["store"]["not_kept"] == {} and cold["store"]["all"]["written"] > 0
    assert warm["agents"]["t"]["forwards"]["made"] == warm["store"]["all"]["forwarded"] == 0


def test_whatever_the_batch_size(texts: Path, tmp_path: Path) -> None:
    """On a CPU a forward has eight texts, in a shape of their own lengths."""
    run("sentences", texts, "step", tmp_path)
    other = run("sentences", texts, "step", tmp_path, batch=10)
    assert other["store"]["all"]["forwarded"] == 0
    assert said(other) == said(run("sentences", texts, "step", "off", batch=10))


def test_another_tokenizer_is_a_miss(texts: Path, tmp_path: Path) -> None:
    teacher = bert(24)
    run("sentences", texts, "once", tmp_path / "one", teacher=teacher)
    teacher = {"hf": {**teacher["hf"], "max_length": 6}}
    other, alone = (run("sentences", texts, "once", tmp_path / store, teacher=teacher) for store in ("one", "empty"))
    assert other["store"]["all"]["found"] == alone["store"]["all"]["found"]  # of texts that two streams have
    assert said(other) == said(run("sentences", texts, "once", "off", teacher=teacher))
