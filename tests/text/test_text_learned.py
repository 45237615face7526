"""Texts: what saved models have learned is known when they come back, and private ones stay with their owners."""

from __future__ import annotations

import pytest
import torch
from text_meshes import bert, write

import kdmesh
from kdmesh.builtin.models.offers import TokenizerConfig
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.text.tokenizers import make


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


OWN = {"shards": {"by": "column", "column": "domain", "of": ["a", "b", "c"]}, "private": True}


def test_no_private_text_is_in_a_tokenizer_that_everyone_has(tmp_path):
    part = {"own": {**OWN, "size": 0.5}}
    made = mesh(tmp_path, streams=part, placement={"one": ["a"], "two": ["b"], "three": ["c"]})
    for name in "abc":
        made.agent(name, bert())
    made.flow("labels", list("abc"), objective="ce", stream="own")
    found = examine(made.plan())
    train = found.streams["train"].rows
    public = train[~torch.isin(train, found.streams["own"].rows)]
    assert 0 < len(public) < len(train)
    config = found.reading.offer("a").config.model_validate(bert()["hf"]).tokenizer
    mine = found.reading.encoder("a").tokenizer.get_vocab()
    assert mine == make(config, found.table.x[public].read()).get_vocab()
    assert mine != make(config, found.table.x[train].read()).get_vocab()
    said = f"tokenizers are made from {len(public)} of {len(train)} training texts: the others are private"
    assert said in found.notes
    with pytest.raises(MeshError, match="all of them are private") as error:
        examine(mesh_of_all(tmp_path).plan())
    assert error.value.where == "agents.a.model.hf.tokenizer"


def mesh_of_all(folder):
    made = mesh(folder, streams={"own": OWN}, placement={"one": ["a"], "two": ["b"], "three": ["c"]})
    for name in "abc":
        made.agent(name, bert())
    made.flow("labels", list("abc"), objective="ce", stream="own")
    return made


def test_hosts_without_the_first_text_train_too(tmp_path):
    made = mesh(
        tmp_path,
        data={"transfer": 0.2},
        streams={"own": OWN},
        placement={"one": ["a"], "two": ["b"], "three": ["c"]},
    )
    known = bert()["hf"]
    make(TokenizerConfig.model_validate(known["tokenizer"]), ["a public text"]).save_pretrained(tmp_path / "tokenizer")
    for name in ("a", "b", "c"):
        made.agent(name, {"hf": {**known, "tokenizer": str(tmp_path / "tokenizer")}})
    made.flow("labels", ["a", "b", "c"], objective="ce", stream="own")
    result = made.run(backend="inline")
    assert all(agent.metrics["test"]["accuracy"] >= 0 for agent in result.agents.values())
