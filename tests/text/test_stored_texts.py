"""Texts with a store: rows of samples and of tokens, with the same bits, and found only in the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from text_meshes import bert, gpt

import kdmesh
from kdmesh.engine.label import Asked, label
from kdmesh.hosts.identity import identity
from kdmesh.text import build

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


def mesh(case: str, texts: Path, refresh: str, batch: int = 8, teacher: Any = None) -> kdmesh.Mesh:
    more, columns, usual, student, flow = CASES[case]
    fields = {
        **more,
        "data": {"dataset": {"text": {"path": str(texts), **columns}}},
        "agents": {"t": {"model": teacher or usual, "update": "frozen"}, "s": {"model": student}},
        "flows": [
            {"from": "labels", "to": "s", "objective": "ce"},
            {"from": "t", "to": "s", "refresh": refresh, **flow},
        ],
        "train": {"epochs": 2, "batch_size": batch},
    }
    return kdmesh.Mesh(**fields)


def run(case: str, texts: Path, refresh: str, store: str | Path, batch: int = 8, teacher: Any = None) -> Any:
    return mesh(case, texts, refresh, batch, teacher).run(backend="inline", store=str(store)).summary


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


@pytest.mark.parametrize("actors", [None, pytest.param(2, marks=pytest.mark.ray)])
@pytest.mark.parametrize("case", ["words", "language"])
def test_labelled_ahead_a_run_forwards_nothing(case: str, actors: int | None, texts: Path, tmp_path: Path) -> None:
    """The same key, the same forwards, the same bits."""
    made = label(Asked(mesh(case, texts, "step").plan().spec, ("t",), str(tmp_path), actors))
    without, warm = (run(case, texts, "step", store) for store in ("off", tmp_path))
    assert said(without) == said(warm) and warm["store"]["all"]["forwarded"] == 0
    assert made.agents["t"].done.written == made.agents["t"].rows > 0 and warm["store"]["all"]["foreign"] == 0


def test_a_language_model_is_the_same_one_in_another_process(texts: Path) -> None:
    """transformers keeps a hash of texts, which Python draws anew in each."""
    one = build.build(
        task="language_modelling", vocabulary=100, pad=0, config={**gpt()["hf"]["config"], "vocab_size": 100}
    ).eval()
    known = identity(one)
    assert isinstance(one.net.generation_config._original_object_hash, int)
    one.net.generation_config._original_object_hash += 1
    assert identity(one) == known
    one.net.generation_config.temperature = 0.5
    assert identity(one) != known
