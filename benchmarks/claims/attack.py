"""Ten members, four of them attackers, and what five consensus rules make of their answers.

Members train on shards of their own. Then they are frozen and answer on an unlabelled stream: all honestly (``clean``),
or four of them with the class that is least likely by their own model (``own``), or by the other six together
(``knowing``, the loss maximisation attack of Roux et al., 2024). One student a rule learns from that consensus alone;
all students start from the same weights and see the same batches.
"""

from __future__ import annotations

from typing import Any

from attackers import Committee, LeastLikely
from torch import nn

from kdmesh import Mesh

MEMBERS = [f"m{i}" for i in range(10)]
ATTACKERS = 4
RULES: dict[str, str | dict[str, Any]] = {
    "mean": "mean",
    "vote": "vote",
    "trimmed mean": {"trimmed_mean": {"trim": 0.3}},
    "median": "median",
    "geometric median": "geometric_median",
}
DATA = {"dataset": "digits", "transfer": 0.3}
TRAIN = {"batch_size": 32, "optimizer": {"adamw": {"lr": 5e-3}}}


def figures(seed: int) -> dict[str, float]:
    """Return test percentages of every rule's consensus and student, clean and under both attacks."""
    clean = honest(seed)
    knowing = LeastLikely(Committee(clean[ATTACKERS:]))
    members = {
        "clean": clean,
        "own": [*map(LeastLikely, clean[:ATTACKERS]), *clean[ATTACKERS:]],
        "knowing": [knowing] * ATTACKERS + clean[ATTACKERS:],
    }
    return {name: value for attack in members for name, value in _distil(seed, members[attack], attack).items()}


def honest(seed: int) -> list[nn.Module]:
    """Train all members, each on a tenth of the labels."""
    mesh = Mesh(
        name="members",
        seed=seed,
        data={**DATA, "seed": seed},
        streams={"own": {"shards": {"by": "iid", "of": MEMBERS}, "private": True}},
        train={**TRAIN, "epochs": 40},
    )
    for name in MEMBERS:
        mesh.agent(name, {"mlp": {"hidden": [32]}})
    mesh.flow("labels", MEMBERS, stream="own", objective="ce")
    result = mesh.run(backend="inline")
    return [result[name].module for name in MEMBERS]


def _distil(seed: int, members: list[nn.Module], attack: str) -> dict[str, float]:
    mesh = Mesh(name="attack", seed=seed, data={**DATA, "seed": seed}, train={**TRAIN, "epochs": 20})
    for name, module in zip(MEMBERS, members, strict=True):
        mesh.agent(name, module, update="frozen")
    nodes = {}
    for number, (name, rule) in enumerate(RULES.items()):
        student = mesh.agent(f"s{number}", {"mlp": {"hidden": [32]}}, **({"init_of": "s0"} if number else {}))
        nodes[name] = student, mesh.consensus(f"c{number}", rule)
        mesh.flow(MEMBERS, f"c{number}", stream="transfer")
        mesh.flow(f"c{number}", student, objective="kl")
    result = mesh.run(backend="inline")
    found = {}
    for name, (student, consensus) in nodes.items():
        found[f"{name}, {attack}"] = 100 * result.summary["consensus"][consensus]["metrics"]["test"]["accuracy"]
        found[f"student of {name}, {attack}"] = 100 * result[student].metrics["test"]["accuracy"]
    return found
