"""Latency of models of texts: of the run's own samples, as its tokenizers cut them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import text_meshes

import kdmesh
from kdmesh.engine import latency
from kdmesh.hosts import latency as hosts
from kdmesh.signals.lazy import dense


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Measure in this process, with next to no calls; the shapes of what forwards gave."""
    found: list[Any] = []

    def fresh(order: Any, content: bytes) -> dict[str, Any]:
        assert content == b""
        return hosts.measure(order, None)

    def timed(forward: Any, inputs: list[Any], *_: Any) -> list[float]:
        found.append((len(inputs), tuple(dense(forward(inputs[0])).shape)))
        return [0.001]

    monkeypatch.setattr(latency, "_fresh", fresh)
    monkeypatch.setattr(hosts, "timed", timed)
    return found


@pytest.mark.parametrize("make", [text_meshes.classified, text_meshes.modelled])
def test_one_answer_a_text_of_its_class_or_the_next_token(
    texts: Path, tmp_path: Path, shapes: list[Any], make: Any
) -> None:
    mesh = make(texts, name="texts")
    mesh = {**mesh, "agents": {"s": mesh["agents"]["s"]}, "connect": [], "train": {"steps": 1, "batch_size": 8}}
    folder = kdmesh.Mesh(**mesh).run(backend="inline", out=tmp_path).folder
    found = latency.measure(folder)
    assert found["failed"] == {} and found["inputs"] == {"stream": "test", "random": False}
    one = found["agents"]["s"]
    columns = 3 if make is text_meshes.classified else shapes[0][1][1]
    assert shapes == [(one["samples"], (1, columns)), (1, (64, columns))]
    assert columns == 3 or columns > 100
    assert 2 < one["tokens"]["average"] < one["tokens"]["most"] <= 48


def one(folder: Path, shapes: list[Any], **fields: Any) -> dict[str, Any]:
    """What is measured of a model that trained for a step, on few texts."""
    mesh = kdmesh.Mesh(name="one", train={"steps": 1, "batch_size": 8}, **fields)
    found = latency.measure(mesh.run(backend="inline", out=folder).folder)
    assert found["failed"] == {} and len(shapes) == 2
    agent: dict[str, Any] = found["agents"]["s"]
    return agent


def test_a_word_has_an_answer_each_where_words_are_tagged(texts: Path, tmp_path: Path, shapes: list[Any]) -> None:
    data = {"dataset": {"text": {"path": str(texts), "spans": "spans"}}}
    one(tmp_path, shapes, task="token_classification", data=data, agents={"s": {"model": text_meshes.bert(8)}})
    (_, single), (_, many) = shapes
    assert 1 < single[0] < many[0] and single[1] == many[1]


@pytest.mark.parametrize("settings", [{}, {"bi_encoder": {"similarity": "cosine", "scale": 5}}])
def test_a_list_is_one_sample(tmp_path: Path, shapes: list[Any], settings: dict[str, Any]) -> None:
    rows = []
    for n, word in enumerate(["dog", "red", "six", "bird"] * 10):
        candidates = ["a cat", f"my {word}", "old"][: 2 + n % 2]
        relevance = [0.0, 1.0, 0.0][: len(candidates)]
        rows.append({"query": f"the {word}", "candidates": candidates, "relevance": relevance})
    path = tmp_path / "lists.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    columns = {"query": "query", "candidates": "candidates", "relevance": "relevance"}
    data = {"dataset": {"text": {"path": str(path), **columns}}}
    one(tmp_path, shapes, task="ranking", data=data, agents={"s": {"model": text_meshes.bert(8, **settings)}})
    assert [shape for _, shape in shapes] == [(1, 3), (64, 3)]
