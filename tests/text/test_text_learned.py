"""Texts: what saved models have learned is known when they come back, and private ones stay with their owners."""

from __future__ import annotations

import json
import shutil
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from safetensors import safe_open
from text_meshes import bert, classified, modelled, write
from transformers import AutoModelForSequenceClassification

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.streams.contents import Keys
from kdmesh.streams.learned import in_header
from kdmesh.text.settings import TokenizerConfig
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with texts, and an agent that learned some of them."""
    root = tmp_path_factory.mktemp("texts")
    made = mesh(root)
    made.agent("t", {"hf": {**bert()["hf"], "lora": {"rank": 2}}} if find_spec("peft") else bert())
    made.flow("labels", "t", objective="ce")
    return made.run(backend="inline", out=root).folder / "agents" / "t"


@pytest.mark.parametrize("moved", ["the folder", "weights alone", "weights over others", "a copy of others"])
def test_weights_that_leave_their_folder_say_what_they_learned(folder, tmp_path, moved):
    """Texts in another order, and a folder without kdmesh.json, or with that of another agent, or other weights."""
    shutil.copytree(folder, at := tmp_path / "agent")
    said = json.loads((at / "kdmesh.json").read_text())
    header = in_header(at / "model.safetensors")
    assert Keys(header[0]["seen"]["taught"]).count == said["learned_from"][0]["seen"]["taught"]["count"] > 20
    for file in at.rglob("*.safetensors"):  # of an adapter too
        with safe_open(file, "pt") as opened:
            assert opened.metadata()["format"] == "pt" and json.loads(opened.metadata()["learned_from"]) == header
    if moved == "weights alone":
        (at / "kdmesh.json").unlink()
    if moved == "weights over others":
        (at / "kdmesh.json").write_text(json.dumps({**said, "learned_from": []}))
    if moved == "a copy of others":  # as transformers saves them, who knows nothing of records
        net = AutoModelForSequenceClassification.from_pretrained(at)
        net.save_pretrained(at)
    lines = write(tmp_path).read_text().splitlines()
    texts = tmp_path / "turned.jsonl"
    texts.write_text("\n".join(lines[::-1]))
    made = kdmesh.Mesh(
        data={"dataset": {"text": {"path": str(texts), "label": "label"}}}, train={"steps": 2, "batch_size": 8}
    )
    made.agent("t", {"hf": {"path": str(at), "max_length": 48}}, update="frozen")
    made.agent("s", bert())
    made.connect("ensemble", teachers="t", student="s", objective="kl")
    if moved == "a copy of others":
        assert any("the samples are not recorded one by one" in text for text in examine(made.plan()).marks)
        return
    with pytest.raises(MeshError, match="test samples were used to train these weights") as error:
        examine(made.plan())
    assert error.value.where == "agents.t.model.hf.path"


@pytest.mark.parametrize("made", [classified, modelled, partial(modelled, text={"pack": True, "max_length": 48})])
def test_other_test_texts_change_no_weight_and_no_tokenizer(tmp_path, made):
    """Tokenizers, packing, consensus and budgets are made of what teaches: the test's texts are only measured."""
    train = write(tmp_path)
    found = []
    for number, words in enumerate(("the red cat", "quite unheard words: ÄÖÜ ßøå, zzz qqq")):
        test = tmp_path / f"test{number}.jsonl"
        rows = [{"text": f"{words} {row}", "label": "animal", "domain": "a"} for row in range(12)]
        test.write_text("\n".join(map(json.dumps, rows)))
        mesh = made(train)
        mesh["train"] = {"steps": 2, "batch_size": 8}
        mesh["data"]["dataset"]["text"]["test_path"] = str(test)
        result = kdmesh.Mesh(**mesh).run(backend="inline", out=tmp_path / str(number))
        agents = result.summary["agents"]
        tokenizers = [(result.folder / "agents" / name / "tokenizer.json").read_text() for name in agents]
        tested = [agent["metrics"]["test"]["loss"] for agent in agents.values()]
        found.append(([agent["weights_sha256"] for agent in agents.values()], tokenizers, tested))
    assert found[0][:2] == found[1][:2]
    assert all(one != other for one, other in zip(found[0][2], found[1][2], strict=True))


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
    with pytest.raises(MeshError, match="which are all private") as error:
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
