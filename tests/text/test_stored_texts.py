"""Texts with a store: rows of samples and of tokens, with the same bits, and found only in the same tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import text_meshes
from text_meshes import bert, gpt

import kdmesh
from kdmesh.engine.label import Asked, label
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.hosts.identity import identity
from kdmesh.hosts.unbuilt_weights import UnbuiltWeights
from kdmesh.spec.read import parse
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
    "bucket": (MODELLED, {}, gpt(24), gpt(16), {"objective": "kl", "signal": {"top_k": {"k": 4, "tail": "bucket"}}}),
    "sampled": (MODELLED, {}, gpt(24), gpt(16), {"objective": "kl", "signal": {"sampled": {"k": 2, "draws": 4}}}),
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


BY_ACTORS = pytest.param("language", 2, marks=pytest.mark.ray)
SELDOM = pytest.param("words", 2, marks=[pytest.mark.ray, pytest.mark.slow])  # starts actors of its own, as the other


@pytest.mark.parametrize(("case", "actors"), [("words", None), ("language", None), BY_ACTORS, SELDOM])
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


def taught_by(model: Any, texts: Path, store: Path | str, refresh: str = "step", **more: Any) -> dict[str, Any]:
    """The summary of a run of a student with a frozen teacher."""
    return made_by(model, texts, store, refresh, None, **more)[0]


def made_by(model: Any, texts: Path, store: Path | str, refresh: str, out: Path | None, **more: Any) -> Any:
    """The same, with the folder. Python's `Mesh.run` would read all weights at the end, to return them."""
    fields = {
        "data": {"dataset": {"text": {"path": str(texts), "label": "label"}}},
        "agents": {"t": {"model": model, "update": "frozen"}, "s": {"model": bert(16, 1)}},
        "flows": [
            {"from": "labels", "to": "s", "objective": "ce"},
            {"from": "t", "to": "s", "refresh": refresh, "objective": "kl"},
        ],
        "train": {"epochs": 2, "batch_size": 8},
        **more,
    }
    summary, folder, _ = run_once(Request(parse(fields), "inline", store=str(store), out=out))
    return summary, None if folder is None else folder.root


def trained(texts: Path, out: Path, seed: int = 0) -> Path:
    """The folder of an agent that was trained."""
    made = kdmesh.Mesh(
        data={"dataset": {"text": {"path": str(texts), "label": "label"}}},
        agents={"t": {"model": bert(24), "seed": seed}},
        flows=[{"from": "labels", "to": "t", "objective": "ce"}],
        train={"steps": 2, "batch_size": 8},
    ).run(backend="inline", store="off", out=out)
    return Path(made.folder) / "agents" / "t"


@pytest.mark.parametrize("refresh", ["once", "step"])
def test_a_teacher_in_a_folder_of_which_all_is_there_is_not_built(
    refresh: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are hashed, to what the model itself is known by; the run's folder refers to them."""
    teacher = {"hf": {"path": str(trained(texts, tmp_path / "first")), "max_length": 48}}
    store = tmp_path / "kept"
    without, cold = (taught_by(teacher, texts, where, refresh) for where in ("off", store))
    with monkeypatch.context() as patched:
        patched.setattr(UnbuiltWeights, "read", lambda self: pytest.fail("it was built"))
        warm, folder = made_by(teacher, texts, store, refresh, tmp_path / "warm")
    assert said(without) == said(cold) == said(warm)
    assert (cold["store"]["not_loaded"], warm["store"]["not_loaded"]) == ([], ["t"])
    assert warm["store"]["all"]["forwarded"] == 0 and warm["agents"]["t"]["latency_ms"] is None
    assert (folder / "agents" / "t" / "reference.json").is_file()
    assert kdmesh.load(folder / "agents" / "t")(["a red cat"]).shape == (1, 3)
    more = texts.with_name(f"more-{refresh}.jsonl")
    more.write_text("\n".join(json.dumps(row) for row in text_meshes.rows(120, 5)), encoding="utf-8")
    again = taught_by(teacher, more, store, refresh)  # of which it lacks some: built in the middle of the run
    assert again["store"]["not_loaded"] == [] and again["store"]["all"]["written"] > 0
    assert said(again) == said(taught_by(teacher, more, "off", refresh))


def test_a_folder_that_has_changed_is_another_teacher(texts: Path, tmp_path: Path) -> None:
    folder, other = (trained(texts, tmp_path / str(seed), seed) for seed in (0, 1))
    teacher, store = {"hf": {"path": str(folder), "max_length": 48}}, tmp_path / "kept"
    taught_by(teacher, texts, store)
    assert taught_by(teacher, texts, store)["store"]["not_loaded"] == ["t"]
    for note in (notes := [*(store / "v1" / "models").iterdir()]):
        note.write_text(note.read_text(encoding="utf-8").replace('"module": "', '"module": "0'), encoding="utf-8")
    assert len(notes) == 1
    damaged = taught_by(teacher, texts, store)  # says nothing, and is written anew
    assert damaged["store"]["not_loaded"] == [] and damaged["store"]["all"]["forwarded"] == 0
    assert taught_by(teacher, texts, store)["store"]["not_loaded"] == ["t"]
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    changed = taught_by(teacher, texts, store)
    assert changed["store"]["not_loaded"] == [] and changed["store"]["all"]["written"] > 0
    assert said(changed) == said(taught_by(teacher, texts, "off"))
