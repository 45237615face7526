"""What a teacher of digits tells of those it learned, and what passes to students that never saw one of them.

The teacher learns 400 digits by heart, or by DP-SGD at epsilon 8 (delta 1e-5) for about as many updates as 40 epochs.
Two students, of 500 other digits, learn from it alone: one from its logits, one from the class it names. Each is asked
about the 400 by an attack with 8 shadow runs of the whole mesh on halves of these and of 400 test digits; nothing
selects on what is found. Figures are percent of members found where at most 4 of the 400 others are taken for such.

The secret of the party is made of the seed here, so that figures can be had again; a real one is random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kdmesh.engine.experiment import Experiment
from kdmesh.engine.request import Request
from kdmesh.inference.auditing.membership import by_loss
from kdmesh.inference.auditing.opened import opened
from kdmesh.inference.auditing.shadows import by_shadows, shadows
from kdmesh.privacy import keys
from kdmesh.privacy.accounting import calibrated
from kdmesh.privacy.ledger import Budget, Ledger, Title
from kdmesh.spec.read import parse, read_mesh

if TYPE_CHECKING:
    from kdmesh.spec import MeshSpec
    from kdmesh.streams.table import Table

EPSILON, DELTA = 8, 1e-5
SAMPLES, BATCH, SHADOWS, RATE = 400, 50, 8, 0.01
STEPS = 40 * SAMPLES // BATCH
MODEL = {"mlp": {"hidden": [64]}}
AGENTS = ("teacher", "soft student", "hard student")


def figures(seed: int) -> dict[str, float]:
    """Return percentages of members found, and of test digits that are right."""
    sigma = calibrated(EPSILON, DELTA, STEPS, 1.0, rate=BATCH / SAMPLES)
    private = {"private": {"noise_multiplier": sigma, "max_grad_norm": 1.0}}
    return {**_told(seed, "overfitted", {}), **_told(seed, "private", private)}


def _told(seed: int, kind: str, train: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        home = Path(folder)
        numbers = count()
        train_one = _trainer(home, seed, numbers)
        root = train_one(parse(_mesh(seed, train)), None, home / "run")
        run = opened(root, read_mesh(root / "resolved.yaml"))
        known = shadows(run, SHADOWS, train_one, spends=True)
        for name, agent in zip(AGENTS, ("teacher", "soft", "hard"), strict=True):
            trained = run.agent(agent)
            losses = [one for one in by_loss(run, agent, trained, RATE, None) if one.learned_by == "teacher"]
            ratios = [one for one in by_shadows(run, agent, trained, known, RATE) if one.learned_by == "teacher"]
            (loss,), (ratio,) = losses, ratios
            found[f"{kind} {name}"] = 100 * ratio.membership.share
            found[f"{kind} {name}, area"] = 100 * ratio.membership.auc
            found[f"{kind} {name}, by loss"] = 100 * loss.membership.share
            found[f"{kind} {name}, right"] = 100 * loss.accuracy[1]
    return found


def _mesh(seed: int, train: dict[str, Any]) -> dict[str, Any]:
    privacy = {"epsilon": EPSILON, "delta": DELTA, "adjacency": "zero_out"}
    return {
        "name": "leaks",
        "seed": seed,
        "data": {
            "dataset": "digits", "train": SAMPLES, "transfer": 500, "validation": 0, "test": 600, "stratify": False,
            "seed": seed,
        },
        "streams": {"own": {"of": "train", "private": True}},
        "agents": {"teacher": {"model": MODEL, "train": train}, "soft": {"model": MODEL}, "hard": {"model": MODEL}},
        "flows": [
            {"from": "labels", "to": "teacher", "objective": "ce", "stream": "own"},
            {"from": "teacher", "to": "soft", "objective": "kl", "stream": "transfer", "refresh": "once"},
            {"from": "teacher", "to": "hard", "objective": "kl", "signal": "votes", "stream": "transfer",
             "refresh": "once"},
        ],
        "train": {"batch_size": BATCH, "steps": STEPS, "optimizer": {"adam": {"lr": 0.003}}},
        **({"parties": {"clinic": {"agents": ["teacher"], "privacy": privacy}}} if train else {}),
    }  # fmt: skip


def _trainer(home: Path, seed: int, numbers: count[int]) -> Callable[[MeshSpec, Table | None, Path], Path]:
    """Trains a mesh; a private one each time with a new account, as another party would."""

    def train(spec: MeshSpec, table: Table | None, out: Path) -> Path:
        accounts = None
        if spec.parties:
            accounts = home / f"accounts-{next(numbers)}"
            clinic = accounts / "clinic"
            clinic.mkdir(parents=True)
            secret = clinic / "secret"
            secret.write_bytes(hashlib.sha256(f"leaks {seed} {accounts.name}".encode()).digest())
            secret.chmod(0o600)
            title = Title("clinic", keys.load(secret).identity, "sample", "zero_out", Budget(float(EPSILON), DELTA))
            with Ledger(clinic / "ledger", title):
                pass
        request = Request(spec, "inline", None, out, table=table, store="off", privacy=accounts)
        folder = Experiment(request).run().folder
        assert folder is not None
        return folder.root

    return train
