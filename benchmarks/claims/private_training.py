"""A party trains an agent privately on its digits, and a student elsewhere learns what that says of public ones.

The party has 948 labelled digits; as many steps as would be 40 epochs, of 128 samples each on average. The noise is
the least with which these steps keep to epsilon at delta 1e-5, by Renyi divergences. Nothing else differs between the
runs: optimiser, steps and rate were chosen once, for all of them, without looking at any figure.

- ``epsilon 1``, ``3``, ``8``: the agent. ``student of ...``: who never saw a private sample, and learns from it alone.
- ``without noise``: the agent trained as usual, of shuffled batches; ``its student``.

The secret of the party is made of the seed here, so that figures can be had again; a real one is random.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.privacy import keys
from kdmesh.privacy.accounting import calibrated
from kdmesh.privacy.ledger import Budget, Ledger, Title
from kdmesh.spec.read import parse

EPSILONS, DELTA = (1, 3, 8), 1e-5
STEPS, BATCH, SAMPLES = 300, 128, 948
MODEL = {"mlp": {"hidden": [32]}}


def figures(seed: int) -> dict[str, float]:
    """Return test percentages."""
    found = {}
    for epsilon in EPSILONS:
        found[f"epsilon {epsilon}"], found[f"student of epsilon {epsilon}"] = _private(seed, epsilon)
    found["without noise"], found["its student"] = _accuracies(run_once(Request(parse(_mesh(seed)), "inline"))[0])
    return found


def _mesh(seed: int, **more: Any) -> dict[str, Any]:
    return {
        "name": "private",
        "seed": seed,
        "data": {
            "dataset": "digits",
            "transfer": 0.25,
            "validation": 100,
            "test": 400,
            "stratify": False,
            "seed": seed,
        },
        "streams": {"own": {"of": "train", "private": True}},
        "agents": {"agent": {"model": MODEL, "train": more}, "student": {"model": MODEL}},
        "flows": [
            {"from": "labels", "to": "agent", "objective": "ce", "stream": "own"},
            {"from": "agent", "to": "student", "objective": "kl", "stream": "transfer", "refresh": "once"},
        ],
        "train": {"batch_size": BATCH, "steps": STEPS, "optimizer": {"adam": {"lr": 0.01}}},
    }


def _private(seed: int, epsilon: float) -> tuple[float, float]:
    sigma = calibrated(epsilon, DELTA, STEPS, 1.0, rate=BATCH / SAMPLES)
    fields = _mesh(seed, private={"noise_multiplier": sigma, "max_grad_norm": 1.0})
    privacy = {"epsilon": epsilon, "delta": DELTA, "adjacency": "zero_out"}
    fields["parties"] = {"clinic": {"agents": ["agent"], "privacy": privacy}}
    make_plan(parse(fields), registry())
    with TemporaryDirectory() as folder:
        home = Path(folder) / "clinic"
        home.mkdir()
        secret = home / "secret"
        secret.write_bytes(hashlib.sha256(f"benchmark {seed} {epsilon}".encode()).digest())
        secret.chmod(0o600)
        budget = Budget(float(epsilon), DELTA)
        with Ledger(home / "ledger", Title("clinic", keys.load(secret).identity, "sample", "zero_out", budget)):
            pass
        summary = run_once(Request(parse(fields), "inline", privacy=Path(folder)))[0]
    spent = summary["privacy"]["clinic"]
    assert spent["rdp"] <= epsilon and spent["answers"] == STEPS, spent
    return _accuracies(summary)


def _accuracies(summary: dict[str, Any]) -> tuple[float, float]:
    agents = summary["agents"]
    made = [100 * agents[name]["metrics"]["test"]["accuracy"] for name in ("agent", "student")]
    return made[0], made[1]
