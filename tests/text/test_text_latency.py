"""Latency of models of texts: of the run's own samples, as its tokenizers cut them."""

from __future__ import annotations

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
