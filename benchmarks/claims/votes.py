"""250 teachers of a party vote, with noise, on public images; a student elsewhere learns what they said.

Fashion-MNIST: the party has 50,000 images, 200 for each teacher; 1,000 others are public, without labels. Each is asked
about once (GNMax). The noise is the least with which all answers keep to epsilon at delta 1e-5, by Renyi divergences on
any votes; at epsilon 1 only the first 250 are asked about, so that there is less of it. Models, steps and rates are the
same in all runs, and were chosen without looking at any figure.

- ``epsilon 1``, ``4``, ``8``: the student. ``without noise``: the same of 1,000 votes that are told as they are.
- ``200 labels``: the student's model on as many labelled images as one teacher has.

The secret of the party is made of the seed here, so that figures can be had again; a real one is random.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.privacy import keys
from kdmesh.privacy.accounting import calibrated
from kdmesh.privacy.ledger import Budget, Ledger, Title
from kdmesh.privacy.sensitivity import OF_VOTES
from kdmesh.spec.read import parse

DELTA, TEACHERS, EACH = 1e-5, 250, 200
ASKED = {1: 250, 4: 1000, 8: 1000}
"""By epsilon, how many public images the teachers are asked about."""
MODEL = {"mlp": {"hidden": [64]}}
TAUGHT = {"steps": 400, "batch_size": 50}
TRAIN = {"steps": 60, "batch_size": 50, "optimizer": {"adam": {"lr": 0.003}}}


def figures(seed: int, folder: str, teachers: int = TEACHERS) -> dict[str, float]:
    """Return test percentages. ``folder``: of the four files; ``teachers``: how many there are."""
    found = {f"epsilon {epsilon}": _private(seed, folder, epsilon, asked, teachers) for epsilon, asked in ASKED.items()}
    found["without noise"] = _accuracy(_mesh(seed, folder, max(ASKED.values()), "vote", teachers))
    found[f"{EACH} labels"] = _accuracy(_labelled(seed, folder))
    return found


def _data(seed: int, folder: str, **sizes: int) -> dict[str, Any]:
    more = {"validation": 0, "stratify": False, "seed": seed}
    return {"dataset": {"idx": {"folder": folder}}, **sizes, **more}


def _mesh(seed: int, folder: str, asked: int, rule: Any, teachers: int) -> dict[str, Any]:
    return {
        "name": "votes",
        "seed": seed,
        "data": _data(seed, folder, transfer=asked, train=teachers * EACH),
        "streams": {"mine": {"of": "train", "shards": {"by": "iid", "of": ["t[*]"]}, "private": True}},
        "agents": {"t": {"model": MODEL, "count": teachers}, "student": {"model": MODEL, "train": TAUGHT}},
        "parties": {"clinic": {"agents": ["t[*]"]}},
        "consensus": {"counted": {"rule": rule}},
        "flows": [
            {"from": "labels", "to": "t[*]", "objective": "ce", "stream": "mine"},
            {"from": "t[*]", "to": "counted", "stream": "transfer", "refresh": "once"},
            {"from": "counted", "to": "student", "objective": {"kl": {"temperature": 1}}},
        ],
        "train": TRAIN,
    }


def _labelled(seed: int, folder: str) -> dict[str, Any]:
    return {
        "name": "labels",
        "seed": seed,
        "data": _data(seed, folder, train=EACH),
        "agents": {"student": {"model": MODEL, "train": TAUGHT}},
        "flows": [{"from": "labels", "to": "student", "objective": "ce"}],
        "train": TRAIN,
    }


def _private(seed: int, folder: str, epsilon: float, asked: int, teachers: int) -> float:
    sigma = calibrated(epsilon, DELTA, asked, OF_VOTES["sample", "replace"])
    fields = _mesh(seed, folder, asked, {"gnmax": {"sigma": sigma}}, teachers)
    fields["parties"]["clinic"]["privacy"] = {"epsilon": epsilon, "delta": DELTA}
    with TemporaryDirectory() as accounts:
        home = Path(accounts) / "clinic"
        home.mkdir()
        secret = home / "secret"
        secret.write_bytes(hashlib.sha256(f"benchmark {seed} {epsilon}".encode()).digest())
        secret.chmod(0o600)
        title = Title("clinic", keys.load(secret).identity, "sample", "replace", Budget(float(epsilon), DELTA))
        with Ledger(home / "ledger", title):
            pass
        return _accuracy(fields, epsilon, asked, Path(accounts))


def _accuracy(fields: dict[str, Any], epsilon: float = 0, asked: int = 0, accounts: Path | None = None) -> float:
    summary = run_once(Request(parse(fields), "inline", privacy=accounts))[0]
    if accounts is not None:
        spent = summary["privacy"]["clinic"]
        assert spent["rdp"] <= epsilon and spent["answers"] == asked, spent
    return 100 * float(summary["agents"]["student"]["metrics"]["test"]["accuracy"])
