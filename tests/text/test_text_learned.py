"""Texts: what saved models have learned is known when they come back, and private ones stay with their owners."""

from __future__ import annotations

import pytest
from text_meshes import bert, write

import kdmesh
from kdmesh.errors import MeshError


def mesh(folder, **fields):
    data = {"dataset": {"text": {"path": str(write(folder)), "label": "label"}}, **fields.pop("data", {})}
    return kdmesh.Mesh(data=data, train={"steps": 2, "batch_size": 8}, **fields)


def test_a_saved_folder_is_refused_beside_another_split(tmp_path):
    made = mesh(tmp_path)
    made.agent("t", bert())
    made.flow("labels", "t", objective="ce")
    folder = made.run(backend="inline", out=tmp_path).folder / "agents" / "t"
    for seed in (0, 1):
        made = mesh(tmp_path, data={"seed": seed}, seed=5)
        made.agent("t", {"hf": {"path": str(folder), "max_length": 48}}, update="frozen")
        made.agent("s", bert())
        made.connect("ensemble", teachers="t", student="s", objective="kl")
        if not seed:
            assert made.run(backend="inline").summary["agents"]["s"]["updates"] == 2
            continue
        with pytest.raises(MeshError, match="split in another way") as error:
            made.run(backend="inline")
        assert error.value.where == "agents.t.model.hf.path" and "data.seed: 0" in error.value.instead


def test_hosts_without_the_first_text_train_too(tmp_path):
    made = mesh(
        tmp_path,
        data={"transfer": 0.2},
        streams={"own": {"shards": {"by": "column", "column": "domain", "of": ["a", "b", "c"]}, "private": True}},
        placement={"one": ["a"], "two": ["b"], "three": ["c"]},
    )
    for name in ("a", "b", "c"):
        made.agent(name, bert())
    made.flow("labels", ["a", "b", "c"], objective="ce", stream="own")
    result = made.run(backend="inline")
    assert all(agent.metrics["test"]["accuracy"] >= 0 for agent in result.agents.values())
