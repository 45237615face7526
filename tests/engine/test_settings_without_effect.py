"""Settings that would do nothing beside what else a file says: each is refused where it stands."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

NET = {"model": {"mlp": {"hidden": [4]}}}
BASE: dict[str, Any] = {
    "data": {"dataset": "digits", "train": 100},
    "agents": {"t": NET, "s": NET},
    "flows": [
        {"from": "labels", "to": ["t", "s"], "objective": "ce"},
        {"from": "t", "to": "s", "objective": "kl"},
    ],
    "train": {"epochs": 1},
}
FOLLOWER = {**NET, "update": {"ema": {"of": "s"}}}
BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
GPT = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 64}
FILE = {"path": "texts.csv"}
TEXT, LANGUAGE = "data.dataset.text", "language_modelling"


def texts(data, config=None, task="classification", **settings):
    """A mesh of one model of texts."""
    made = {"config": {**(config or BERT)}, "tokenizer": {"characters": {}}, **settings}
    train = {"epochs": 1, "batch_size": 4}
    dataset = {"dataset": {"text": data}}
    return {"task": task, "data": dataset, "agents": {"s": {"model": {"hf": made}}}, "text": {"max_length": 8}} | {
        "train": train
    }


def vectors(**settings):
    """A mesh that ranks lists of vectors."""
    data = {"dataset": {"lists": {"path": "lists.jsonl", **settings}}}
    flows = [{"from": "labels", "to": "s", "objective": "info_nce"}]
    return {"task": "ranking", "data": data, "agents": {"s": {"model": "bi_encoder"}}, "flows": flows}


def with_(**fields):
    """The base, with further fields."""
    return {**copy.deepcopy(BASE), **fields}


def agent(name, **fields):
    return with_(agents={"t": NET, "s": NET, name: {**(FOLLOWER if name == "e" else NET), **fields}})


def strategy(**settings):
    return {
        key: value
        for key, value in with_(
            connect=[{"ensemble": {"teachers": "t", "student": "s", **settings}}], streams={"x": {"size": 50}}
        ).items()
        if key != "flows"
    }


@pytest.mark.parametrize(
    ("spec", "where", "said"),
    [
        (
            texts({**FILE, "labels": ["a"]}, GPT, "language_modelling"),
            "data.dataset.text",
            "`labels` goes with `label`",
        ),
        (texts({**FILE, "classes": 2}, GPT, LANGUAGE), TEXT, "`classes` goes with `label`"),
        (texts({**FILE, "tools": "tag"}, GPT, LANGUAGE), TEXT, "`tools` goes with"),
        (
            texts({**FILE, "label": "label"}, label_map={"0": "1"}),
            "agents.s.model.hf",
            "`label_map` is about the model",
        ),
        (with_(text={"max_length": 64}), "text.max_length", "these data have none"),
        (with_(text={"over": "drop"}), "text.over", "these data have none"),
        (with_(text={"bucket": True}), "text.bucket", "these data have none"),
        (with_(text={"pack": True}), "text.pack", "language_modelling"),
        (vectors(dimensions=64), "data.dataset.lists.dimensions", "these are vectors"),
        (vectors(ngrams=2), "data.dataset.lists.ngrams", "these are vectors"),
        (agent("e", train={"epochs": 3}), "agents.e.train.epochs", "follow those of s"),
        (agent("e", train={"steps": 3}), "agents.e.train.steps", "follow those of s"),
        (agent("e", train={"optimizer": {"sgd": {"lr": 1}}}), "agents.e.train.optimizer", "follow those of s"),
        (agent("e", train={"schedule": "cosine"}), "agents.e.train.schedule", "follow those of s"),
        (agent("e", train={"clip": 1.0}), "agents.e.train.clip", "follow those of s"),
        (agent("t", model={"mlp": {"hidden": [], "dropout": 0.5}}), "agents.t.model.mlp", "`hidden` has none"),
        (agent("t", model={"mlp": {"hidden": [], "activation": "gelu"}}), "agents.t.model.mlp", "`hidden` has none"),
        (strategy(labels=None, labels_stream="x"), "connect.0.ensemble", "no effect with labels: null"),
    ],
)
def test_what_does_nothing_is_refused(spec, where, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.csv").write_text("text,label,tag\n" + "".join(f"some text {n},{n % 2},x\n" for n in range(30)))
    line = {"query": [1.0, 2.0], "positives": [[1.0, 2.0]], "negatives": [[0.5, 0.1]]}
    (tmp_path / "lists.jsonl").write_text(f"{json.dumps(line)}\n" * 30)
    with pytest.raises(MeshError) as refused:
        examine(make_plan(parse(spec), registry()))
    assert refused.value.where.startswith(where) and said in str(refused.value)


@pytest.mark.parametrize(
    "spec",
    [
        with_(),
        vectors(),
        agent("e", train={"evaluate_every": 1, "precision": "bf16"}),
        agent("t", model={"mlp": {"hidden": []}}),
        {**strategy(labels_stream="x")},
        with_(
            agents={name: {**NET, "taps": {"mid": "layers.0"}} for name in ("t", "s")},
            flows=[*BASE["flows"], {"from": "t", "to": "s", "objective": "hint", "tap": "mid"}],
        ),
        with_(
            streams={"x": {"size": 50}, "y": {"of": "x"}}, flows=[*BASE["flows"], {**BASE["flows"][1], "stream": "y"}]
        ),
    ],
)
def test_what_has_a_use_is_not(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = {"query": [1.0, 2.0], "positives": [[1.0, 2.0]], "negatives": [[0.5, 0.1]]}
    (tmp_path / "lists.jsonl").write_text(f"{json.dumps(line)}\n" * 30)
    plan = make_plan(parse(spec), registry())
    examine(plan)
    examine(make_plan(parse(plan.resolved().dump()), registry()))  # every default written out, as good


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (with_(streams={"x": {"size": 50}}), "streams.x: no flow is on it"),
        (agent("t", taps={"mid": "layers.0"}), "agents.t.taps.mid: no flow compares or carries this layer"),
    ],
)
def test_what_nothing_reads_is_said(spec, said):
    assert [note for note in examine(make_plan(parse(spec), registry())).notes if said in note]
    assert not [note for note in examine(make_plan(parse(with_()), registry())).notes if "no flow" in note]
