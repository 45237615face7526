from __future__ import annotations

import jsonschema
import pytest
from pydantic import field_validator

from kdmesh.hookspecs import hookimpl
from kdmesh.offers import (
    Config,
    ConsensusOffer,
    DatasetOffer,
    ModelOffer,
    ObjectiveOffer,
    SignalOffer,
    StrategyOffer,
    ViewOffer,
)
from kdmesh.plugins import Registry
from kdmesh.schema import json_schema
from kdmesh.spec import ObjectiveRef
from kdmesh.spec.read import bundled, parse
from kdmesh.spec.yaml12 import load


class MlpConfig(Config):
    hidden: list[int]


class KlConfig(Config):
    temperature: float = 1.0


class VoteConfig(Config):
    threshold: int = 0


class EnsembleConfig(Config):
    teachers: list[str]
    student: str
    objective: ObjectiveRef = ObjectiveRef(name="kl")

    @field_validator("teachers", mode="before")
    @classmethod
    def _one_or_many(cls, value):
        return [value] if isinstance(value, str) else value


class Plugin:
    @hookimpl
    def kdmesh_models(self):
        return [ModelOffer("mlp", "a:b", MlpConfig, "a perceptron")]

    @hookimpl
    def kdmesh_objectives(self):
        return [ObjectiveOffer("kl", "a:b", KlConfig, "forward KL"), ObjectiveOffer("ce", "a:b")]

    @hookimpl
    def kdmesh_consensus(self):
        return [ConsensusOffer("mean", "a:b"), ConsensusOffer("vote", "a:b", VoteConfig)]

    @hookimpl
    def kdmesh_datasets(self):
        return [DatasetOffer("digits", "a:b")]

    @hookimpl
    def kdmesh_strategies(self):
        return [StrategyOffer("ensemble", "a:b", EnsembleConfig, "many teach one")]

    @hookimpl
    def kdmesh_signals(self):
        return [SignalOffer("votes", "a:b")]

    @hookimpl
    def kdmesh_views(self):
        return [ViewOffer("noise", "a:b")]


@pytest.fixture(scope="module")
def validator():
    schema = json_schema(Registry([Plugin()]))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


GOOD = [
    """
data: digits
agents:
  t1: {model: {mlp: {hidden: [4]}}, update: frozen}
  t2: {weights_of: t1, view: {augment: [noise, {noise: {}}]}}
  e: {model: {"nets.small:Net": {width: 3}}, update: {ema: {of: s, decay: 0.9}}}
  s: {model: nets:Net, train: {optimizer: sgd, schedule: {cosine: {warmup: 1}}}}
  nothing:
connect:
  - ensemble: {teachers: [t1, t2], student: s, objective: {kl: {temperature: 4}}}
  - ensemble: {teachers: t1, student: s}
train: {epochs: 2, optimizer: {adamw: {lr: 1e-3}}}
""",
    """
data: {dataset: {digits: }, test: 100, validation: 0.1}
streams: {own: {of: train, shards: {by: dirichlet, of: [a, b]}}}
agents: {a: , b: }
consensus:
  c: mean
  d: {vote: {}}
  e: {rule: mean, space: probs, temperature: 4}
  f: {rule: vote, threshold: 3}
flows:
  - {from: labels, to: [a, b], objective: ce}
  - {from: [a, b], to: c, refresh: 10 steps, signal: votes}
  - {from: c, to: a, objective: kl, weight: {start: 0, end: 1, epochs: 5}, tap: layers.2}
  - {from: c, to: b, objective: kl, tap: {of: x, to: y}, as: target}
program:
  - {of: a, repeat: 2, until: {agreement: 0.9}, do: [{lesson: own, epochs: 1}, {publish: [a, b], to: c}, {train: a}]}
placement: {host: [a, b]}
""",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_the_spec_reads_is_valid_in_both_forms(validator, text):
    data = load(text)
    validator.validate(data)
    validator.validate(parse(data).dump())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "agents: {a: {model: mpl}}",
        "agents: {a: {model: {mlp: {hiden: [1]}}}}",
        "agents: {a: {model: {mlp: {hidden: [1]}, cnn: {}}}}",
        "agents: {a: }\nconnect: [{ensemble: {teachers: [a], student: a, objective: kll}}]",
        "agents: {a: }\nconnect: [{ensemble: {teachers: [a], student: a, objective: {kl: {temp: 1}}}}]",
        "agents: {a: }\nflows: [{from: a}]",
        "agents: {a: }\ndata: {dataset: digits, tset: 3}",
        "agents: {a: }\nseed: -1",
    ],
)
def test_mistakes_are_found_by_the_schema(validator, text):
    assert not validator.is_valid(load(text))


def test_names_carry_their_summaries(validator):
    names = validator.schema["$defs"]["ObjectiveRef"]["anyOf"]
    assert {"const": "kl", "description": "forward KL"} in names


def test_the_bundled_meshes_are_valid():
    validator = jsonschema.Draft202012Validator(json_schema())
    for name, path in bundled().items():
        errors = [error.message for error in validator.iter_errors(load(path.read_text(encoding="utf-8")))]
        assert not errors, name
