"""What is wrong with a mesh over texts is said before it runs: the agent, the setting, and what to write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from text_meshes import bert, classified, gpt, llama, modelled, tokenizer

from kdmesh.engine.check import examine
from kdmesh.engine.launch import Request, run_once
from kdmesh.errors import MeshError
from kdmesh.graph.plan import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse


def refused(mesh: dict[str, Any]) -> MeshError:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(mesh), registry()))
    return caught.value


def lines(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "odd.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_an_empty_text_is_named_by_its_line(tmp_path: Path) -> None:
    path = lines(tmp_path, {"text": "a b", "label": "x"}, {"text": " ", "label": "y"})
    assert "line 2" in refused(classified(path)).what


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b'{"text": "\xff"}\n')
    error = refused(classified(path))
    assert "odd.jsonl" in error.what and "UTF-8" in error.what


def test_a_sample_over_the_limit_is_named_or_left_out_for_everyone(texts: Path) -> None:
    mesh = classified(texts, text={"max_length": 6, "over": "refuse"})
    error = refused(mesh)
    assert error.where.startswith("agents.t1") and "texts.jsonl, line" in error.what
    found = examine(make_plan(parse({**mesh, "text": {"max_length": 30, "over": "drop"}}), registry()))
    assert found.left_out is not None and len(found.left_out)
    for stream in found.streams.values():
        assert not set(stream.rows.tolist()) & set(found.left_out.tolist())


def test_truncated_samples_are_counted(texts: Path) -> None:
    found = examine(make_plan(parse(modelled(texts, text={"max_length": 10})), registry()))
    report = found.reading.report("t1")
    assert report.truncated and report.longest > 10


def test_unlike_vocabulary_sizes_need_a_rule(texts: Path) -> None:
    mesh = modelled(texts)
    mesh["agents"]["t1"]["model"]["hf"]["config"]["vocab_size"] = 320
    error = refused(mesh)
    assert "320" in error.what and "vocabulary: prefix" in error.instead
    said: list[str] = []
    request = Request(parse({**mesh, "text": {"vocabulary": "prefix"}}), "inline")
    request.listeners = (lambda event: said.append(event.get("text", "")),)
    summary, _, _ = run_once(request)
    assert any("the first 300 of 320 outputs, renormalised" in text for text in said)
    assert summary["agents"]["s"]["metrics"]["test"]["loss"] > 0


def test_tokens_that_do_not_belong_together_are_refused(texts: Path) -> None:
    mesh = modelled(texts)
    mesh["agents"]["t2"] = {"model": llama(16, 1, None)}
    error = refused(mesh)
    assert "t2" in error.what and "uld, span" in error.instead


def test_a_tap_over_unlike_tokens_is_refused(texts: Path) -> None:
    mesh = classified(texts)
    mesh["connect"] = []
    mesh["flows"] = [
        {"from": "labels", "to": ["t1", "t2", "s"], "objective": "ce"},
        {"from": "t2", "to": "s", "objective": "hint", "tap": {"of": "hidden.1", "to": "hidden.1"}},
    ]
    assert "token by token" in refused(mesh).what


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        ({"task": "language_modelling"}, "sees the tokens", "agents.t1.model"),
        ({"data": {"dataset": "digits"}}, "numbers", "agents.t1.model"),
        ({"text": {"pack": True}}, "packed", "text.pack"),
    ],
    ids=["an encoder as a language model", "numbers for a model of texts", "packed classification"],
)
def test_tasks_models_and_data_must_fit(texts: Path, change: dict[str, Any], what: str, where: str) -> None:
    mesh = {**classified(texts), **change}
    if "task" in change:
        mesh = {**modelled(texts), **change}
        mesh["agents"]["t1"]["model"] = bert(24)
    with pytest.raises(MeshError) as caught:
        run_once(Request(parse(mesh), "inline"))
    assert what in caught.value.what and where in caught.value.where


def test_texts_without_classes_cannot_be_classified(texts: Path) -> None:
    mesh = classified(texts)
    mesh["data"] = {"dataset": {"text": {"path": str(texts), "text": "text"}}}
    assert "no classes" in refused(mesh).what


def test_a_chat_without_a_template_names_the_agent(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    path = lines(tmp_path, *[{"messages": turns}] * 30)
    mesh = modelled(path)
    mesh["data"] = {"dataset": {"text": {"path": str(path), "messages": "messages"}}}
    error = refused(mesh)
    assert error.where.startswith("agents.t1") and "no chat template" in error.what


def test_missing_and_damaged_weights_name_agent_and_file(texts: Path, tmp_path: Path) -> None:
    mesh = classified(texts)
    mesh["agents"]["t1"] = {"model": {"hf": {"path": str(tmp_path / "nowhere"), "tokenizer": tokenizer(300)}}}
    error = refused(mesh)
    assert error.where.startswith("agents.t1.model.hf") and "nowhere" in error.what


def test_a_batch_in_which_nothing_is_asked_changes_nothing(tmp_path: Path) -> None:
    """Prompts that fill the limit leave no unit: no loss, no NaN, and the other batches still train."""
    long, short = {"prompt": "a " * 40, "text": "b"}, {"prompt": "a", "text": "b c"}
    path = lines(tmp_path, *([long] * 60), *([short] * 3))
    mesh = {
        "task": "language_modelling",
        "data": {
            "dataset": {"text": {"path": str(path), "prompt": "prompt", "text": "text"}},
            "test": 2,
            "validation": 0,
        },
        "text": {"max_length": 20},
        "agents": {"s": {"model": gpt(8)}},
        "flows": [{"from": "labels", "to": "s", "objective": "ce"}],
        "train": {"epochs": 1, "batch_size": 1},
    }
    summary, _, _ = run_once(Request(parse(mesh), "inline"))
    assert summary["agents"]["s"]["updates"] == 61


def test_code_of_a_model_is_not_run_unasked(texts: Path) -> None:
    mesh = classified(texts)
    mesh["agents"]["t1"] = {"model": {"hf": {**bert()["hf"], "trust_remote_code": "yes"}}}
    with pytest.raises(MeshError, match="trust_remote_code"):
        make_plan(parse(mesh), registry())
