"""Whole meshes over texts, inline: what is trained, compared, measured and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import bert, classified, gpt, llama, modelled

import kdmesh
from kdmesh.errors import MeshError


def run(mesh: dict[str, Any], out: Path | None = None) -> Any:
    return kdmesh.Mesh(**mesh).run(backend="inline", out=out)


def flow(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"from": source, "to": target, "stream": "train", **more}


def two(path: Path, teacher: dict[str, Any], student: dict[str, Any], *flows: dict[str, Any], **more: Any) -> Any:
    """A frozen teacher and a student of sentences."""
    labels = flow("labels", "s", objective="ce")
    return {
        "data": {"dataset": {"text": {"path": str(path), "label": "label"}}},
        "agents": {"t": {"model": teacher, "update": "frozen"}, "s": {"model": student}},
        "flows": [labels, *flows],
        "train": {"epochs": 1, "batch_size": 8},
        **more,
    }


def test_encoders_with_unlike_tokenizers_teach_one_student(texts: Path, tmp_path: Path) -> None:
    mesh = classified(texts)
    mesh["train"] = {**mesh["train"], "epochs": 12}
    result = run(mesh, tmp_path)
    assert result["t1"].metrics["test"]["accuracy"] > 0.6  # a third by chance
    folder = result.folder / "agents" / "s"
    again = kdmesh.load(folder)
    table_logits = again(["the red bird", "a cat"])
    assert table_logits.shape == (2, 3) and table_logits.isfinite().all()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    read = AutoTokenizer.from_pretrained(folder)
    batch = read(["the red bird", "a cat"], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(plain(**batch).logits, table_logits)
    assert plain.config.id2label == {0: "animal", 1: "colour", 2: "number"}
    manifest = json.loads((result.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["data"]["read_by"]["t2"]["truncated"] == 0


def test_a_mixture_of_language_models_is_measured_in_bits_per_character(texts: Path, tmp_path: Path) -> None:
    mesh = modelled(texts)
    mesh["train"] = {**mesh["train"], "epochs": 8}
    result = run(mesh, tmp_path)
    bits = {name: result[name].metrics["test"]["bits_per_character"] for name in ("t1", "t2", "s")}
    assert all(0.5 < value < 7 for value in bits.values()), bits
    best = min(("t1", "t2"), key=lambda name: result[name].metrics["validation"]["bits_per_character"])
    assert result.summary["best_teacher"] == best
    (consensus,) = result.summary["consensus"].values()
    assert 0.5 < consensus["metrics"]["test"]["bits_per_character"] < 7


def test_words_are_tagged_across_tokenizers(texts: Path) -> None:
    mesh = {
        "task": "token_classification",
        "data": {"dataset": {"text": {"path": str(texts), "spans": "spans"}}},
        "agents": {"t": {"model": bert(24)}, "s": {"model": bert(16, 1, None)}},
        "connect": [{"ensemble": {"teachers": "t", "student": "s", "labels": 0.5}}],
        "train": {"epochs": 12, "batch_size": 8, "optimizer": {"adamw": {"lr": 5e-3}}},
    }
    result = run(mesh)
    assert result["t"].metrics["test"]["accuracy"] > 0.8  # words, of which most carry no tag


def test_layers_teach_layers_of_another_width_and_depth(texts: Path) -> None:
    taps = [{"of": "hidden.0", "to": "hidden.0"}, {"of": "hidden.2", "to": "hidden.1"}]
    mesh = two(
        texts,
        bert(24, 2, attention="eager"),
        bert(16, 1, attention="eager"),
        flow("t", "s", objective="hint", tap=taps, refresh="step"),
        flow("t", "s", objective="attention_kl", tap={"of": "attention.1", "to": "attention.0"}, refresh="once"),
    )
    result = run(mesh)
    assert result["s"].metrics["test"]["loss"] < 3


def test_stored_and_live_answers_of_a_frozen_teacher_are_equal(texts: Path) -> None:
    def weights(refresh: str) -> str:
        teach = flow("t", "s", objective="kl", refresh=refresh)
        return str(run(two(texts, bert(24), bert(16, 1, None), teach))["s"].weights_sha256)

    assert weights("once") == weights("step")


@pytest.mark.parametrize("objective", ["uld", "span"])
def test_language_models_with_unlike_tokenizers(texts: Path, objective: str) -> None:
    mesh = two(texts, gpt(24), llama(16, 1, None), flow("t", "s", objective=objective, refresh="once"))
    mesh |= {"task": "language_modelling", "data": {"dataset": {"text": {"path": str(texts), "text": "text"}}}}
    mesh["agents"]["t"]["update"] = "grad"
    mesh["flows"].append(flow("labels", "t", objective="ce"))
    result = run(mesh)
    (said,) = result.summary["agents"]["s"]["objectives"].values()
    assert 0 < said["coverage"] <= 1
    with pytest.raises(MeshError, match="unlike tokenizers: uld, span"):
        run(
            {
                **mesh,
                "flows": [{**one, "objective": "ce" if one["from"] == "labels" else "kl"} for one in mesh["flows"]],
            }
        )


def test_language_models_teach_each_other(texts: Path) -> None:
    mesh = modelled(
        texts, agents={"a": {"model": gpt(16)}, "b": {"model": gpt(16)}}, connect=[{"mutual": {"peers": ["a", "b"]}}]
    )
    result = run(mesh)
    assert result["a"].weights_sha256 != result["b"].weights_sha256
    assert result.summary["agents"]["a"]["role"] == "peer"


@pytest.mark.parametrize("space", ["probs", "logits", "loss"])
def test_three_spaces_of_consensus(texts: Path, space: str) -> None:
    kl = {"kl": {"temperature": 2}}
    strategy = {"teachers": ["t1", "t2"], "student": "s", "objective": kl, "labels": 0.5}
    consensus = {"rule": "mean", "space": space}
    result = run(modelled(texts, connect=[{"ensemble": {**strategy, "consensus": consensus}}]))
    assert result["s"].metrics["test"]["loss"] > 0
