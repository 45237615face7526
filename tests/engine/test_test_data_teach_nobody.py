"""No path leads from a test sample to a weight: whatever stands in its place, every weight ends with the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accounted import accounts

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.engine.experiment import Experiment
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import parse, read_mesh
from kdmesh.streams.contents import Keys
from kdmesh.streams.learned import in_header
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Texts

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
SMALL = ("data.train=200", "train.epochs=1", "train.batch_size=50")
MODEL = {"mlp": {"hidden": [8]}}


def digits(topology: str = "single-teacher") -> Table:
    """A topology's data, the digits, with an official test split, so that no draw can ask what stands in it."""
    table = Source().load(make_plan(read_mesh(TOPOLOGIES / f"{topology}.yaml"), registry()))[0]
    return replace(table, official={"test": torch.arange(len(table) * 8 // 11, len(table))})


def other(table: Table, name: str, seed: int = 0) -> Table:
    """The same data, but for the samples of one official split: other values, and labels in another order."""
    rows = table.official[name]
    draw = torch.Generator().manual_seed(seed)
    if isinstance(table.x, Texts):  # no more than other answers to other prompts
        texts = list(table.x)
        if texts[0].prompt is None:  # the labels alone: what is written near a test text is dropped, as it is to be
            y = table.y.clone()
            y[rows] = y[rows][torch.randperm(len(rows), generator=draw)]
            return replace(table, y=y)
        for row in rows.tolist():
            texts[row] = replace(texts[row], text=texts[row].text[::-1] + "0", prompt=f"1{texts[row].prompt}")
        return replace(table, x=Texts(texts))
    x, y = table.tensor.clone(), table.y.clone()
    x[rows] = torch.rand(x[rows].shape, generator=draw) * 9 - 4
    y[rows] = y[rows][torch.randperm(len(rows), generator=draw)]
    return replace(table, x=x, y=y)


def small(spec: MeshSpec) -> MeshSpec:
    """A mesh with programs cut short, so that it runs in a second."""
    text = json.loads(json.dumps(spec.dump()))

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: 1 if key in ("epochs", "rounds", "repeat", "steps") and isinstance(one, int) else cut(one)
                for key, one in value.items()
            }
        return [cut(one) for one in value] if isinstance(value, list) else value

    return parse(cut(text))


def weights(spec: MeshSpec, table: Table, privacy: Path | None = None) -> dict[str, Any]:
    """Of every agent: its weights, and how it does on validation. ``privacy``: the folder of its parties' accounts."""
    summary, _, _ = run_once(Request(spec, "inline", table=table, privacy=privacy))
    return {
        name: (agent["weights_sha256"], agent["metrics"].get("validation"), agent["metrics"].get("test"))
        for name, agent in summary["agents"].items()
    }


RUN = sorted({path.stem for path in TOPOLOGIES.glob("*.yaml")} - {"api-classifier"})
"""All but that of an endpoint, which is not here, and of data that a user brings."""


@pytest.mark.parametrize("name", RUN)
def test_other_test_samples_change_no_weight_of_any_topology(name: str, tmp_path: Path) -> None:
    spec = small(read_mesh(TOPOLOGIES / f"{name}.yaml", SMALL))
    table, keys = digits(name), accounts(spec, tmp_path / "accounts")
    before, after = weights(spec, table, keys), weights(spec, other(table, "test"), keys)
    assert [one[:2] for one in before.values()] == [one[:2] for one in after.values()]
    measured = [agent for agent in before if before[agent][2]]  # all but agents that only write
    assert measured and all(before[agent][2] != after[agent][2] for agent in measured)


def test_a_training_sample_does_change_weights() -> None:
    """The test of the others can fail."""
    spec, table = small(read_mesh(TOPOLOGIES / "ensemble.yaml", SMALL)), digits()
    x, train = table.tensor.clone(), Source(table).load(make_plan(spec, registry()))[1]["train"].rows
    x[train[0]] += 1
    before, after = weights(spec, table), weights(spec, replace(table, x=x))
    assert all(before[agent][0] != after[agent][0] for agent in before)


def test_seeds_and_controls_test_the_same_samples_and_learn_none_of_them(tmp_path: Path) -> None:
    """Also where teachers come back from files: each part's own mesh says which rows it tests and what it learns."""
    spec, table = small(read_mesh(TOPOLOGIES / "ensemble.yaml", SMALL)), digits()
    found = []
    for number, data in enumerate((table, other(table, "test"))):
        request = Request(spec, "inline", table=data, out=tmp_path / str(number), seeds=2, controls=True)
        root = Experiment(request).run().folder.root
        parts = sorted(path.parent for path in root.rglob("resolved.yaml") if (path.parent / "agents").is_dir())
        assert len(parts) >= 2 * 3  # two seeds, each with the student alone and from its best teacher
        bits = {}
        for part in parts:
            plan = make_plan(read_mesh(part / "resolved.yaml"), registry())
            streams = Source(data).load(plan)[1]
            assert streams["test"].rows.tolist() == table.official["test"].tolist()
            held, learned = streams["test"].rows, torch.cat([streams[edge.stream].rows for edge in plan.edges])
            assert not torch.isin(held, learned).any()
            summary = json.loads((part / "summary.json").read_text())
            for name, agent in summary["agents"].items():
                bits[str(part.relative_to(root)), name] = agent["weights_sha256"]
                records = in_header(part / "agents" / name / "model.safetensors") or []
                assert records or agent["role"] == "teacher"  # a frozen teacher's file stays where it was
                for record in records:
                    keys = torch.cat([data.keys[held], data.keys[streams["validation"].rows]])
                    assert not Keys(record["seen"]["taught"]).have(keys).any()
        found.append(bits)
    assert found[0] == found[1]


def test_a_chain_of_generations_remembers_the_first_ones_samples(tmp_path: Path) -> None:
    """Each generation learns of other data, the last as the EMA of one that starts as a copy of the one before."""

    def points(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(120, 8, generator=torch.Generator().manual_seed(seed))
        return x, x[:, :3].argmax(1)

    def mesh(seed: int, turned: bool = False) -> kdmesh.Mesh:
        x, y = points(seed)
        data = (x.flip(0), y.flip(0)) if turned else (x, y)
        return kdmesh.Mesh(data=kdmesh.data(data), train={"steps": 2, "batch_size": 16})

    made = mesh(0)
    made.agent("s", MODEL)
    made.connect("chain", agents=["s"], generations=2)
    folder = made.run(backend="inline", out=tmp_path / "0").folder
    weights = sorted(folder.glob("agents/s*/model.safetensors"))[-1]
    made = mesh(1)
    made.agent("t", MODEL, weights=str(weights), update="frozen")
    made.agent("s", MODEL)
    made.connect("ensemble", teachers="t", student="s", labels=None)
    weights = made.run(backend="inline", out=tmp_path / "1").folder / "agents" / "s" / "model.safetensors"
    made = mesh(2)
    made.agent("s", MODEL, weights=str(weights))
    made.agent("e", update={"ema": {"of": "s"}})
    made.flow("labels", "s", objective="ce")
    made.flow("e", "s", objective="mse")
    last = made.run(backend="inline", out=tmp_path / "2").folder / "agents" / "e" / "model.safetensors"
    assert len(in_header(last)) == 3
    for seed in range(3):
        made = mesh(seed, turned=True)
        made.agent("t", MODEL, weights=str(last), update="frozen")
        made.agent("s", MODEL)
        made.connect("ensemble", teachers="t", student="s")
        with pytest.raises(MeshError, match="test samples were used to train these weights or their teachers"):
            examine(made.plan(), {}, made.table)


@pytest.mark.parametrize(
    "stream",
    [
        {"pool": {"of": "test", "labels": False}},
        {"pool": {"of": "some"}, "some": {"of": "test", "labels": False, "size": 20}},
        {"pool": {"of": "test", "labels": False, "private": True}},
        {"pool": {"of": "test", "labels": False, "replay": True}},
        {"pool": {"of": "test", "labels": False, "shards": {"by": "iid", "of": ["t", "s"]}}},
    ],
)
def test_no_stream_of_test_samples_reaches_a_model_even_without_labels(stream: dict[str, Any]) -> None:
    made = kdmesh.Mesh(data="digits", streams=stream, train={"steps": 2})
    made.agent("t", MODEL)
    made.agent("s", MODEL)
    made.flow("labels", "t", objective="ce")
    made.flow("t", "s", stream="pool", objective="kl")
    with pytest.raises(MeshError, match="the test split cannot be used for training"):
        made.plan()


def test_validation_samples_that_teach_are_marked() -> None:
    made = kdmesh.Mesh(data="digits", streams={"pool": {"of": "validation", "size": 30}}, train={"steps": 2})
    made.agent("t", MODEL)
    made.agent("s", MODEL)
    made.flow("labels", "t", objective="ce")
    made.flow("t", "s", stream="pool", objective="kl")
    found = examine(made.plan())
    (text,) = found.marks
    assert text.startswith(f"30 of the {len(found.streams['validation'].rows)} validation samples teach s by stream")
    (one,) = found.learned["s"]
    taught = Keys(one["seen"]["taught"]).have(found.table.keys).nonzero().flatten().tolist()
    assert set(taught) == {*found.streams["train"].rows.tolist(), *found.streams["pool"].rows.tolist()}
