"""Specialists by a column of a CSV: each learns its own domain in private, and speaks where its domain is met."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.check import examine
from kdmesh.engine.events import Events
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.engine.run import Run
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts import rules
from kdmesh.hosts.source import Source
from kdmesh.hosts.state import HostConfig
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

DOMAINS = ("art", "law")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Points of two classes; what is class 1 in one domain is class 0 in the other."""
    draw = torch.Generator().manual_seed(5)
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["u", "v", "domain", "label"])
        for number in range(240):
            u, v = torch.randn(2, generator=draw).tolist()
            sign = number % 2
            writer.writerow([u + 4 * sign, v, DOMAINS[sign], int((v > 0) == bool(sign))])
    return path


def routed(rows: Path, placement: Any, **more: Any) -> dict[str, Any]:
    """Two specialists with private shards by domain, and a student that hears on public samples whose domain it is."""
    route = {"column": "domain", "to": {"art": "a", "law": "l"}}
    model = {"mlp": {"hidden": [16]}}
    return {
        "name": "routed",
        "data": {"dataset": {"csv": {"path": str(rows), "features": ["u", "v"]}}, "transfer": 0.4},
        "streams": {"own": {"shards": {"by": "column", "column": "domain", "of": ["a", "l"]}, "private": True}},
        "agents": {"a": {"model": model}, "l": {"model": model}, "s": {"model": model}},
        "consensus": {"c": {"route": {**route, **more}}},
        "flows": [
            {"from": "labels", "to": ["a", "l"], "stream": "own", "objective": "ce"},
            {"from": ["a", "l"], "to": "c", "stream": "transfer"},
            {"from": "c", "to": "s", "objective": "kl"},
        ],
        "train": {"epochs": 30, "batch_size": 16, "optimizer": {"adamw": {"lr": 0.02}}},
        "placement": placement,
    }


def test_a_column_says_who_speaks(rows: Path) -> None:
    outcomes = []
    for placement in ("together", "spread"):
        summary, _, _ = run_once(Request(parse(routed(rows, placement)), "inline"))
        outcomes.append({name: facts["weights_sha256"] for name, facts in summary["agents"].items()})
        score = {name: facts["metrics"]["test"]["accuracy"] for name, facts in summary["agents"].items()}
        common = summary["consensus"]["c"]["metrics"]["test"]["accuracy"]
        assert common > 0.9
        assert max(score["a"], score["l"]) < 0.8 < score["s"]
    assert outcomes[0] == outcomes[1]


def test_what_the_student_hears_is_the_specialist_of_each_sample(rows: Path) -> None:
    plan = make_plan(parse(routed(rows, "spread")), registry())
    found, backend = examine(plan), InlineBackend()
    backend.open(HostConfig(plan, {}, found.shapes), Source())
    Run(plan, found, backend, Events()).execute()
    host = backend.hosts[plan.host_of["s"]]
    shard = host.loader.shard("transfer", "s", torch.device("cpu"))
    heard = rules.stored(host, "c", "s", shard).value
    values = found.table.columns["domain"]
    for name, domain in (("a", "art"), ("l", "law")):
        at = torch.tensor([values[row] == domain for row in shard.ids.tolist()])
        other = backend.hosts[plan.host_of[name]]
        theirs = other.agents[name].inference(
            other.loader.shard("transfer", name, shard.device).x, host.forward_size(name), ()
        )[0]
        assert torch.equal(heard[at], theirs.softmax(-1)[at])
        hidden = [value for value in other.table.columns["domain"] if value not in ("", domain)]
        assert len(hidden) < values.count({"art": "law", "law": "art"}[domain])  # it holds only its own in private


@pytest.mark.parametrize(
    ("setting", "message", "where"),
    [
        ({"to": {"art": "a"}}, "no source for domain 'law'", "to"),
        ({"to": {"art": "a", "law": "l", "tax": "a"}}, "holds no 'tax'", "to.tax"),
        ({"column": "dommain"}, "the data have no column 'dommain'", "column"),
    ],
)
def test_errors_of_a_rules_setup_say_where_it_stands(rows: Path, setting: Any, message: str, where: str) -> None:
    with pytest.raises(MeshError, match=message) as caught:
        run_once(Request(parse(routed(rows, "together", **setting)), "inline"))
    assert caught.value.where == f"consensus.c.rule.route.{where}"
