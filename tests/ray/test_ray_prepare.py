"""Samples that are prepared, for all agents or for one, are the same on Ray; nobody has private ones of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

pytestmark = pytest.mark.ray

AGENT = {"model": {"mlp": {"hidden": [4]}}}
PREPARE = [
    {"columns": "numbers", "impute": "median", "scale": "standard"},
    {"columns": "categories", "encode": "one_hot", "indicator": True, "unseen": "ignore"},
]
OTHER = [
    {"columns": "numbers", "impute": "mean", "indicator": True},
    {"columns": "categories", "encode": "hash", "outputs": 4, "impute": "most_frequent"},
]


@pytest.fixture
def mesh(tmp_path: Path) -> dict[str, Any]:
    """Two parties with private samples, who meet on public ones; one sees the table in a way of its own."""
    rows = [
        f"{row * 7 % 31 if row % 5 else ''},{row % 13},{'xyz'[row % 3] if row % 7 else ''},{row % 2}"
        for row in range(160)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,word,label", *rows]) + "\n", encoding="utf-8")
    return {
        "name": "m",
        "data": {"dataset": {"csv": {"path": str(tmp_path / "table.csv")}}, "prepare": PREPARE},
        "agents": {"one": AGENT, "two": {**AGENT, "prepare": OTHER}},
        "streams": {
            "public": {"size": 40},
            "own": {"rest_of": "public", "private": True, "shards": {"of": ["one", "two"]}},
        },
        "flows": [
            *(
                {"from": "labels", "to": name, "objective": "ce", "stream": "own", "lesson": "own"}
                for name in ("one", "two")
            ),
            {"from": "one", "to": "two", "objective": "kl", "stream": "public", "lesson": "meet"},
            {"from": "two", "to": "one", "objective": "kl", "stream": "public", "lesson": "meet"},
        ],
        "program": [
            {"of": ["one", "two"], "lesson": "own", "epochs": 1},
            {"of": ["one", "two"], "lesson": "meet", "epochs": 1},
        ],
        "train": {"batch_size": 16},
    }


def test_private_parties_that_prepare_have_the_weights_that_they_have_inline(mesh: dict[str, Any]) -> None:
    public = examine(make_plan(parse(mesh), registry())).table.prepared
    assert public is not None and public.fitted == 40  # of private samples nothing is learned that all know
    found = []
    for backend in ("inline", "ray"):
        summary, _, _ = run_once(Request(parse({**mesh, "placement": "spread"}), backend=backend))
        found.append({name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()})
    assert found[0] == found[1]
