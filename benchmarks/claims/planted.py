"""Planted secrets in a tiny language model: said after training on them, and not where a filter took them out.

Characters of 300 made-up sentences, and of 24 canaries of which about half are in, four times each: a secret of six
digits after a beginning of its own. All models are alike, of 87,360 weights, and learn for 20 epochs.

- ``unfiltered``: learns the texts. ``student, same texts``: learns from that one what it says of the same texts,
  ``student, other texts``: of 300 other ones, without a canary.
- ``filtered``: learns the texts after `data.personal` has taken out what a recogniser finds, which is told the form of
  the secrets, and finds all. ``student, filtered texts``: learns from the unfiltered one what it says of these.

Exposure is in bits, among 127 others, so 7 at most and 1.44 on average for what nobody learned. A secret is said where
the model begins with it when it is given what stands before, greedily or in any of 16 tries by chance, whichever has
more; in percent.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdmesh.engine.experiment import Experiment
from kdmesh.engine.request import Request
from kdmesh.inference.auditing.canaries import exposed
from kdmesh.inference.auditing.extraction import said
from kdmesh.inference.auditing.opened import opened
from kdmesh.spec.read import parse, read_mesh

CANDIDATES, DRAWS = 127, 16
WHO = ("anna", "ben", "carl", "dora", "emil", "fred", "gina", "hans", "iris", "jana", "karl", "lena", "max", "nora")
DID = ("sold", "bought", "carried", "found", "lost", "painted", "mended", "counted", "washed", "opened")
WHAT = ("the old boat", "a red coat", "two green apples", "the long letter", "a small house", "some warm bread")
WHERE = ("in the garden", "by the river", "at the market", "on the hill", "before noon", "near the bridge")


def figures(seed: int) -> dict[str, float]:
    """Return exposures in bits, and percentages of secrets that are said."""
    with TemporaryDirectory() as folder:
        home = _home(folder, seed)
        flows = [
            {"from": "labels", "to": "direct", "objective": "ce"},
            {"from": "direct", "to": "same", "objective": "kl", "refresh": "once"},
            {"from": "direct", "to": "other", "objective": "kl", "stream": "transfer", "refresh": "once"},
        ]
        agents = {name: {"model": _model()} for name in ("direct", "same", "other")}
        first = _run(home, seed, {"agents": agents, "flows": flows})
        names = {"direct": "unfiltered", "same": "student, same texts", "other": "student, other texts"}
        found = _told(first, names)
        agents = {"teacher": _teacher(first), "filtered": {"model": _model()}, "student": {"model": _model()}}
        flows = [
            {"from": "labels", "to": "filtered", "objective": "ce"},
            {"from": "teacher", "to": "student", "objective": "kl"},
        ]
        second = _run(home, seed, {"agents": agents, "flows": flows}, "redact")
        return found | _told(second, {"filtered": "filtered", "student": "student, filtered texts"})


def afterwards(seed: int) -> dict[str, float]:
    """Whether a student hears of secrets by what its teacher says before the place where one was taken out.

    A text that was redacted still has what stands before the secret, and there the teacher says how it would go on. A
    text that was dropped has not.
    """
    with TemporaryDirectory() as folder:
        home = _home(folder, seed)
        flows = [{"from": "labels", "to": "direct", "objective": "ce"}]
        first = _run(home, seed, {"agents": {"direct": {"model": _model()}}, "flows": flows})
        found: dict[str, float] = {}
        for action, name in (("redact", "student, texts redacted"), ("drop", "student, texts dropped")):
            agents = {"teacher": _teacher(first), "student": {"model": _model()}}
            flows = [{"from": "teacher", "to": "student", "objective": "kl"}]
            found |= _told(_run(home, seed, {"agents": agents, "flows": flows}, action), {"student": name})
        return found


def _home(folder: str, seed: int) -> Path:
    rows = _texts(random.Random(seed), 1000)
    (Path(folder) / "texts.jsonl").write_text("\n".join(json.dumps({"text": one}) for one in rows))
    return Path(folder)


def _teacher(run: Path) -> dict[str, Any]:
    return {"model": {"hf": {"path": str(run / "agents" / "direct"), "max_length": 90}}, "update": "frozen"}


def _texts(drawn: random.Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        said = " ".join(drawn.choice(some) for some in (WHO, DID, WHAT, WHERE))
        found[f"{said}, {drawn.choice(('[CODE]', drawn.randrange(100)))}."] = None  # all characters, in each run
    return list(found)


def _model() -> dict[str, Any]:
    config = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "intermediate_size": 128, "max_position_embeddings": 96,
    }  # fmt: skip
    return {"hf": {"config": config, "tokenizer": {"characters": {}}, "max_length": 90}}


def _run(home: Path, seed: int, parts: dict[str, Any], action: str = "") -> Path:
    data: dict[str, Any] = {
        "dataset": {"text": {"path": str(home / "texts.jsonl"), "text": "text"}},
        "train": 300, "transfer": 300, "validation": 0, "test": 200, "seed": seed,
        "canaries": {
            "kind": "secret", "count": 24, "times": 4, "length": 6, "text": "the code of guest {number} is {secret}."
        },
    }  # fmt: skip
    if action:
        data["personal"] = {"action": action, "find": {"pattern": {"match": "[0-9]{6}", "kind": "CODE"}}}
    fields = {
        "name": "secrets", "task": "language_modelling", "seed": seed, "data": data, **parts,
        "train": {"epochs": 20, "batch_size": 16, "optimizer": {"adamw": {"lr": 3e-3}}}, "placement": "together",
    }  # fmt: skip
    folder = Experiment(Request(parse(fields), "inline", None, home / "runs", store="off")).run().folder
    assert folder is not None
    return folder.root


def _told(root: Path, names: dict[str, str]) -> dict[str, float]:
    run = opened(root, read_mesh(root / "resolved.yaml"))
    found: dict[str, float] = {}
    for agent, name in names.items():
        trained = run.agent(agent)
        bits = exposed(run, agent, trained, CANDIDATES, 0.0)
        inside = next(one for one in said(run, agent, trained, DRAWS) if one.inside)
        assert bits is not None
        found[name] = bits.mean[0]
        found[f"{name}, out"] = bits.mean_outside[0]
        found[f"{name}, said"] = 100 * max(inside.greedy, inside.drawn) / inside.canaries
        found[f"{name}, epsilon"] = bits.epsilon
    return found
