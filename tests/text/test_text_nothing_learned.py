"""A run in which nothing is learned, or which reads what no tokenizer knows, is not silent about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import bert, classified, gpt

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.plugins import registry
from kdmesh.spec import TrainSpec
from kdmesh.spec.read import parse
from kdmesh.streams.texts import Sample, Texts


def sums(folder: Path, tokenizer: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Sums as prompts; the answers alone have neither their digits nor their signs."""
    rows = [{"q": f"{a} + {b} = ", "a": "even" if (a + b) % 2 == 0 else "odd"} for a in range(5) for b in range(5)]
    path = folder / "sums.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, *more.pop("others", [])])), encoding="utf-8")
    model = gpt(8)
    model["hf"]["tokenizer"] = tokenizer
    return {
        "task": "language_modelling",
        "data": {"dataset": {"text": {"path": str(path), "prompt": "q", "text": "a"}}, "test": 5, "validation": 0},
        "agents": {"s": {"model": model}},
        "flows": [{"from": "labels", "to": "s", "objective": "ce"}],
        "train": {"epochs": 1, "batch_size": 20, **more.pop("train", {})},
        **more,
    }


@pytest.mark.parametrize("made", [{"characters": {}}, {"bpe": {"vocabulary": 300}}])
def test_a_tokenizer_is_made_from_all_that_is_read(tmp_path: Path, made: dict[str, Any]) -> None:
    found = examine(make_plan(parse(sums(tmp_path, made)), registry()))
    tokenizer = found.reading.encoder("s").tokenizer
    assert tokenizer.unk_token_id not in tokenizer("1 + 2 = even")["input_ids"]
    assert found.reading.report("s").unknown == 0 and not any("unknown" in note for note in found.notes)


def test_unknown_tokens_are_counted_and_said(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"q": "3 * 2 = ", "a": "even!"}), encoding="utf-8")
    mesh = sums(tmp_path, {"characters": {}})
    del mesh["data"]["test"]
    mesh["data"]["dataset"]["text"]["test_path"] = str(test)
    found = examine(make_plan(parse(mesh), registry()))
    report = found.reading.report("s")
    assert report.unknown == 2  # * and !
    assert f"2 of {report.tokens:,} tokens that s reads are unknown to its tokenizer" in found.notes


def test_all_that_is_read_has_prompts_and_every_turn() -> None:
    turns = (("user", "hello"), ("assistant", "good"))
    called = (("user", "hi"), ("assistant", "", '{"tool_calls": []}'))
    every = [Sample("a", prompt="long "), Sample("a", pair="bc"), Sample(messages=turns)]
    texts = Texts([*every, Sample(messages=called, tools="[1]")])
    assert texts.read() == ["long a", "a\nbc", "hello\ngood", '[1]\nhi\n{"tool_calls": []}']


@pytest.mark.parametrize("lr", [0.0, 1e-3])
def test_a_run_in_which_no_weight_changes_says_so(texts: Path, tmp_path: Path, lr: float) -> None:
    mesh = {**classified(texts), "agents": {"s": {"model": bert(8)}}, "connect": []}
    mesh["flows"] = [{"from": "labels", "to": "s", "objective": "ce"}]
    mesh["train"] = {"epochs": 1, "batch_size": 30, "optimizer": {"sgd": {"lr": lr}}}
    result = kdmesh.Mesh(**mesh).run(backend="inline", out=tmp_path)
    told = (result.folder / "events.jsonl").read_text(encoding="utf-8")
    silent = result.summary["agents"]["s"].get("learned") is None
    assert silent == (lr > 0) == ("s learned nothing: none of its" not in told)


def test_a_weight_that_moves_is_seen_whatever_its_sum_does() -> None:
    module = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(module.weight), torch.nn.init.zeros_(module.bias)
    weights = LocalWeights("a", module, TrainSpec(optimizer={"sgd": {"lr": 1.0}}))
    weights.start(3)
    assert weights.moved is None
    for gradient, moved in ((0.0, False), (1.0, True), (0.0, True)):
        weights.zero()
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        module.bias.grad = torch.tensor([gradient, -gradient])  # its sum stays
        weights.step()
        assert weights.moved is moved


def test_labels_that_an_agent_has_no_outputs_for_teach_it_nothing(texts: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    path = tmp_path / "two.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows if row["label"] != "number"), encoding="utf-8")
    dataset = {"path": str(path), "test_path": str(texts), "label": "label", "labels": ["animal", "colour", "number"]}
    mesh = {**classified(texts), "agents": {"s": {"model": bert(8), "labels": [2]}}, "connect": []}
    mesh["data"] = {"dataset": {"text": dataset}, "validation": 0.1}
    mesh["flows"] = [{"from": "labels", "to": "s", "objective": "ce"}]
    with pytest.raises(
        MeshError, match=r"none of its \d+ samples of 'train' is of a class that it knows, \[2\]"
    ) as error:
        examine(make_plan(parse(mesh), registry()))
    assert error.value.where == "agents.s.labels" and error.value.instead
