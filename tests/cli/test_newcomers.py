"""What people write who come from other tools is answered with the place where kdmesh has it, and what to write."""

from __future__ import annotations

import pytest

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

MESH = """
data: {data}
agents: {{t1: {{model: mlp}}, t2: {{model: mlp}}, s: {agent}}}
connect:
  - ensemble: {{teachers: [t1, t2], student: s{ensemble}}}
{top}
"""
PLAIN = {"data": "digits", "agent": "{model: mlp}", "ensemble": "", "top": ""}


def refused(**parts):
    text = MESH.format(**{**PLAIN, **parts})
    with pytest.raises(MeshError) as caught:
        make_plan(parse(load(text)), registry())
    return caught.value


@pytest.mark.parametrize(
    ("setting", "instead"),
    [
        ("temperature: 4", "`objective: {kl: {temperature: 4}}`"),
        ("T: 4", "`objective: {kl: {temperature: 4}}`"),
        ("alpha: 0.7", "`labels: 0.7` (weight of the students' labels"),
        ("alpha: 0.7", "or `weight: 0.7` (weight of"),
        ("loss: kl", "`objective: kl`"),
        ("criterion: kl", "`objective: kl`"),
        ("teacher: t1", "`teachers: t1`"),
        ("aggregation: median", "`consensus: median`"),
        ("space: logits", "`consensus: {rule: ..., space: logits}`"),
        ("consensus: median, space: logits", "`consensus: {rule: median, space: logits}`"),
        ("objective: mse, temperature: 4", "`objective: {kl: {temperature: 4}}`"),
        ("objective: ce, label_smoothing: 0.1", "`objective: {ce: {label_smoothing: 0.1}}`"),
        ("epochs: 3", "`train: {epochs: 3}` (passes over the lesson's first stream), at the top of the file"),
        ("batch_size: 8", "`train: {batch_size: 8}`"),
        ("lr: 0.1", "`train: {optimizer: {adamw: {lr: 0.1}}}`"),
        ("layer: layers.0", "`tap: layers.0`"),
    ],
)
def test_a_setting_of_something_else_beside_a_strategy(setting, instead):
    error = refused(ensemble=f", {setting}")
    assert error.where.startswith("connect.0.ensemble.")
    assert error.what == "unknown field"
    assert instead in error.instead and "fields: consensus, labels" in error.instead


@pytest.mark.parametrize(
    ("settings", "instead"),
    [
        ("lr: 0.1", "`optimizer: {adamw: {lr: 0.1}}`"),
        ("learning_rate: 0.1", "`optimizer: {adamw: {lr: 0.1}}`"),
        ("optimizer: sgd, lr: 0.1", "`optimizer: {sgd: {lr: 0.1}}`"),
        ("optimizer: {sgd: {lr: 1}}, momentum: 0.9", "`optimizer: {sgd: {momentum: 0.9}}`"),
        ("weight_decay: 0", "`optimizer: {adamw: {weight_decay: 0}}`"),
        ("warmup: 10", "`schedule: {cosine: {warmup: 10}}`"),
        ("scheduler: cosine", "`schedule: cosine`"),
        ("num_epochs: 3", "`epochs: 3`"),
        ("max_grad_norm: 1", "`clip: 1`"),
        ("gradient_accumulation_steps: 2", "`accumulate: 2`"),
        ("patience: 3", "`early_stopping: {patience: 3}`"),
        ("bf16: true", "`precision: ...` (bf16"),
        ("temperature: 4", "`connect: [{ensemble: {objective: {kl: {temperature: 4}}}}]`"),
        ("max_seq_length: 64", "`text: {max_length: 64}`"),
        ("seed: 3", "`seed: 3` (run seed"),
    ],
)
def test_a_setting_under_train_that_has_another_place_or_name(settings, instead):
    error = refused(top=f"train: {{{settings}}}")
    assert error.where.startswith("train.") and error.what == "unknown field"
    assert instead in error.instead


@pytest.mark.parametrize(
    ("setting", "instead"),
    [
        ("epochs: 4", "`train: {epochs: 4}`"),
        ("lr: 0.1", "`train: {optimizer: {adamw: {lr: 0.1}}}`"),
        ("temperature: 2", "`connect: [{ensemble: {objective: {kl: {temperature: 2}}}}]`"),
        ("validation: 0.2", "`data: {dataset: digits, validation: 0.2}`"),
        ("models: {}", "`agents: ...`"),
        ("ensemble: {teachers: t1, student: s}", "`connect: [{ensemble: ...}]`"),
    ],
)
def test_a_setting_at_the_top_of_the_file(setting, instead):
    error = refused(top=setting)
    assert error.where == setting.partition(":")[0] and instead in error.instead


@pytest.mark.parametrize(
    ("agent", "where", "instead"),
    [
        ("{model: mlp, lr: 0.1}", "agents.s.lr", "`train: {optimizer: {adamw: {lr: 0.1}}}`"),
        ("{model: mlp, hidden: [4]}", "agents.s.hidden", "`model: {mlp: {hidden: ...}}`"),
        ("{mlp: {hidden: [4]}}", "agents.s.mlp", "`model: {mlp: ...}`"),
        ("{model: mlp, frozen: true}", "agents.s.frozen", "`update: ...` (grad, frozen"),
        ("{model: mlp, pretrained: a.safetensors}", "agents.s.pretrained", "`weights: a.safetensors`"),
        ("{model: mlp, augment: [shift]}", "agents.s.augment", "`view: {augment: ...}`"),
        ("{path: gpt2}", "agents.s.path", "`model: {hf: {path: gpt2}}`"),
        ("{model: {mlp: {lr: 0.1}}}", "agents.s.model.mlp.lr", "`train: {optimizer: {adamw: {lr: 0.1}}}`"),
        ("{model: mynets.Net}", "agents.s.model", "'mynets:Net', with a colon, for Net of the module mynets"),
        ("{model: torch.nn.Linear}", "agents.s.model", "'torch.nn:Linear', with a colon"),
        ("{model: gpt2}", "agents.s.model", "{hf: {path: 'gpt2'}}"),
        ("{model: older.onnx}", "agents.s.model", "{onnx: {path: 'older.onnx'}}"),
        ("{model: MLP}", "agents.s.model", "did you mean 'mlp'? known models"),
    ],
)
def test_an_agent_that_says_what_it_is_in_other_words(agent, where, instead):
    error = refused(agent=agent)
    assert error.where == where and instead in error.instead


@pytest.mark.parametrize(
    ("data", "where", "instead"),
    [
        ("my.csv", "data.dataset", "{csv: {path: 'my.csv'}}"),
        ("texts/all.jsonl", "data.dataset", "{jsonl: {path: 'texts/all.jsonl'}}"),
        ("{path: x.csv}", "data.path", "`dataset: {csv: {path: x.csv}}`"),
        ("{digits: {}, test: 0.1}", "data.digits", "`dataset: digits`"),
        ("{dataset: digits, val: 0.1}", "data.val", "`validation: 0.1`"),
        ("[1]", "data", "{dataset: ...}"),
    ],
)
def test_data_named_by_their_file(data, where, instead):
    error = refused(data=data)
    assert error.where == where and instead in error.instead


def test_settings_of_what_has_none_are_to_be_left_out():
    error = refused(ensemble=", objective: {attention_mse: {power: 2}}")
    assert error.where == "connect.0.ensemble.objective.attention_mse.power"
    assert "it has no settings" in error.instead


def test_an_import_path_where_only_offers_are_named():
    error = refused(ensemble=", objective: 'mine:Loss'")
    assert "only models, data sets and filters are named by an import path" in error.instead
