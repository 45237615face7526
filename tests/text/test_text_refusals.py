"""What is wrong with a mesh over texts is said before it runs: the agent, the setting, and what to write."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from text_meshes import bert, classified, gpt, llama, modelled, tokenizer

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
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
    listen = (lambda event: said.append(getattr(event, "text", "")),)
    request = Request(parse({**mesh, "text": {"vocabulary": "prefix"}}), "inline", listeners=listen)
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


def test_a_statistic_of_samples_over_a_layer_of_tokens_is_refused(texts: Path) -> None:
    mesh = classified(texts)
    mesh["connect"] = []
    mesh["flows"] = [
        {"from": "labels", "to": ["t1", "t2", "s"], "objective": "ce"},
        {"from": "t1", "to": "s", "signal": "class_means", "objective": "prototype", "refresh": "epoch",
         "tap": {"of": "hidden.1", "to": "hidden.1"}},
    ]  # fmt: skip
    error = refused(mesh)
    assert "class_means is of samples, and layer 'hidden.1' of t1 has a row for each token" in error.what
    assert error.where == "flows.1.tap"


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        ({"task": "language_modelling"}, "sees the tokens", "agents.t1.model"),
        ({"data": {"dataset": "digits"}}, "the data are images", "agents.t1.model"),
        ({"text": {"pack": True}}, "`pack` is for task: language_modelling", "text.pack"),
    ],
    ids=["an encoder as a language model", "images for a model of texts", "packed classification"],
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


CHAT_TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"


def chatting(folder: Path, *rows: Any, **more: Any) -> dict[str, Any]:
    """A student of chats, one in a row."""
    from small_texts import architecture, bpe

    made = copy.deepcopy(bpe())
    made.chat_template = CHAT_TEMPLATE
    made.save_pretrained(folder / "tokenizer")
    model = {"hf": {"config": architecture("gpt2"), "tokenizer": str(folder / "tokenizer"), "max_length": 48}}
    path = lines(folder, *({"messages": row} for row in rows))
    return {
        "task": "language_modelling",
        "data": {"dataset": {"text": {"path": str(path), "messages": "messages"}}, "test": 4, "validation": 4},
        "agents": {"s": {"model": model}},
        "flows": [{"from": "labels", "to": "s", "objective": "ce"}],
        "train": {"epochs": 1, "batch_size": 4},
        **more,
    }


def test_a_chat_whose_end_the_template_leaves_out_is_exported(tmp_path: Path) -> None:
    mesh = chatting(tmp_path, *[TURNS] * 24)
    for file in (tmp_path / "tokenizer").glob("chat_template*"):
        file.write_text(CHAT_TEMPLATE.replace("</s>", " "), encoding="utf-8")
    result = kdmesh.Mesh(**mesh).run(backend="inline", out=tmp_path / "runs")
    assert (result.folder / "agents" / "s" / "model.safetensors").is_file()


TURNS = [{"role": "user", "content": "who is it?"}, {"role": "assistant", "content": "the cat"}]


def test_bad_chats_are_left_out_counted_and_said(tmp_path: Path) -> None:
    thoughts = [TURNS[0], {**TURNS[1], "reasoning_content": "it sat on a mat"}]
    calls = [TURNS[0], {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}]
    mesh = chatting(tmp_path, *[TURNS] * 14, thoughts, TURNS[:1], calls, *[TURNS] * 7)
    found = examine(make_plan(parse(mesh), registry()))
    assert found.left_out is not None and found.left_out.tolist() == [15, 16]
    assert sum(len(stream.rows) for stream in found.streams.values()) == 22
    said = "\n".join(found.notes)
    assert "2 of 24 texts are left out because s cannot read them: sample 15" in said
    assert "line 16: no turn of role 'assistant'" in said
    assert "s's chat template does not write reasoning_content, which 1 of 24 texts have" in said
    summary, _, _ = run_once(Request(parse(mesh), "inline"))
    assert summary["agents"]["s"]["updates"] == 4  # of 16, 18 or 24 samples the first is what is left to train on
    error = refused({**mesh, "text": {"over": "refuse"}})
    assert "line 16: no turn of role 'assistant'" in error.what and error.where == "agents.s"


def test_a_split_of_bad_chats_alone_is_refused(tmp_path: Path) -> None:
    mesh = chatting(tmp_path, *[TURNS] * 8)
    other = tmp_path / "test.jsonl"
    other.write_text(json.dumps({"messages": [TURNS[1], {"role": "tool", "content": "x"}]}) + "\n", encoding="utf-8")
    mesh["data"]["dataset"]["text"]["test_path"] = str(other)
    tokenizer = json.loads((tmp_path / "tokenizer" / "tokenizer_config.json").read_text())
    strict = CHAT_TEMPLATE.replace("[{{", "{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}[{{")
    for file in (tmp_path / "tokenizer").glob("chat_template*"):
        file.write_text(strict, encoding="utf-8")
    del mesh["data"]["test"], tokenizer
    error = refused(mesh)
    assert error.where == "data.test" and "no sample of 'test' can be read" in error.what and "no tools" in error.what


@pytest.mark.parametrize("rows", ["prompts", "chats"])
def test_samples_with_nothing_left_to_learn_are_counted_apart_and_refused_where_all_are(
    tmp_path: Path, rows: str
) -> None:
    long = [{**TURNS[0], "content": "who is it? " * 30}, TURNS[1]]
    given = {"prompts": ({"q": "a " * 60, "a": "b"}, {"q": "a", "a": "b"}), "chats": (long, TURNS)}[rows]

    def mesh(*every: Any) -> dict[str, Any]:
        made = chatting(tmp_path, *every, text={"max_length": 40})
        if rows == "prompts":
            path = lines(tmp_path, *every)
            made["data"]["dataset"] = {"text": {"path": str(path), "prompt": "q", "text": "a"}}
        return made

    some = examine(make_plan(parse(mesh(*given * 12)), registry()))
    assert "12 of 24 texts leave s nothing to learn within its limit" in some.notes
    assert "s reads 12 of 24 texts cut to its limit, 0 are left out" in some.notes
    error = refused(mesh(*given[:1] * 24))
    assert error.where == "text.max_length" and "its longest sample has" in error.instead
    assert "nothing is left to learn for s in the 16 samples of 'train'" in error.what


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
