"""Parties with digits of their own, unequal by class, and what each way to learn from one another brings them.

Six parties share out the training digits by class, Dirichlet 0.5; 30% have no labels and are public. Every party begins
with the same weights, learns ``ROUNDS * LOCAL`` epochs of its own samples, and is measured on all ten classes.

- ``alone``: nothing but that. ``pooled``: one model on the samples of all, the simulation that no party could run.
- ``FedMD``: the mean of the parties' answers to public samples, digested each round (Li and Wang, 2019).
- ``FedAvg``: the mean of their weights each round (McMahan et al., 2017).
- ``FedDF``: that mean learns what the parties together say of public samples (Lin et al., 2020).
- ``one-shot``: a server learns the mean answer of parties that have learned alone (Guha et al., 2019).

Then ten parties, of which four lie in FedMD: with certainty they say the class that the six honest ones, trained alone,
hold least likely (Roux et al., 2024). What they say does not change over the rounds. Honest parties are measured, under
each rule, and without liars under the mean.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from attackers import Committee, LeastLikely
from torch import nn

from kdmesh import Mesh
from kdmesh.api import Result

ROUNDS, LOCAL = 5, 2
PARTIES, HONEST, LIARS = 6, 6, 4
MODEL = {"mlp": {"hidden": [32]}}
RULES: dict[str, str | dict[str, Any]] = {
    "mean": "mean",
    "median": "median",
    "trimmed mean": {"trimmed_mean": {"trim": 0.4}},
    "geometric median": "geometric_median",
    "eigenvector filter": {"eigen_filter": {"share": 0.4}},
    "ExpGuard": "expguard",
}


def figures(seed: int) -> dict[str, float]:
    """Return test percentages: of parties on average, or of the server or the pooled model."""
    alone = _alone(seed)
    honest = [alone[name].module for name in _names(PARTIES)]
    found = {
        "alone": _parties(alone),
        "FedMD": _parties(_fedmd(seed)),
        "FedAvg": _accuracy(_fedavg(seed), "server"),
        "FedDF": _accuracy(_fedavg(seed, fused=True), "server"),
        "one-shot": _accuracy(_one_shot(seed, honest), "server"),
        "pooled": _accuracy(_pooled(seed), "one"),
    }
    lie = LeastLikely(Committee(honest))
    found |= {f"{name}, attacked": _parties(_fedmd(seed, lie, rule)) for name, rule in RULES.items()}
    return found


def _names(count: int) -> list[str]:
    return [f"party[{number}]" for number in range(count)]


def _mesh(seed: int, **fields: Any) -> Mesh:
    """The parties and their shards, all with the same initial weights."""
    mesh = Mesh(
        name="federated",
        seed=seed,
        data={"dataset": "digits", "transfer": 0.3, "seed": seed},
        streams={"own": {"shards": {"by": "dirichlet", "alpha": 0.5, "of": _names(PARTIES)}, "private": True}},
        train={"batch_size": 32, "optimizer": {"adamw": {"lr": 5e-3}}},
        **fields,
    )
    for name in _names(PARTIES):
        mesh.agent(name, MODEL, **({} if name == "party[0]" else {"init_of": "party[0]"}))
    mesh.flow("labels", _names(PARTIES), stream="own", objective="ce", lesson="own")
    return mesh


def _alone(seed: int) -> Result:
    lessons = [{"of": [name], "lesson": "own", "epochs": ROUNDS * LOCAL} for name in _names(PARTIES)]
    return _mesh(seed, program=lessons).run(backend="inline")


def _fedmd(seed: int, lie: nn.Module | None = None, rule: str | dict[str, Any] = "mean") -> Result:
    names, liars = _names(PARTIES), [f"liar[{number}]" for number in range(LIARS if lie is not None else 0)]
    publish = {"publish": names}
    rounds = [{"lesson": "own", "epochs": LOCAL}, publish, {"lesson": "digest", "epochs": 1}]
    mesh = _mesh(seed, program=[{"of": names, "repeat": ROUNDS, "do": rounds}])
    mesh.consensus("agreed", rule)
    mesh.flow(names, "agreed", stream="transfer", refresh="round")
    for name in liars:
        mesh.agent(name, lie, update="frozen")
        mesh.flow(name, "agreed", stream="transfer")
    mesh.flow("agreed", names, objective="kl", lesson="digest")
    return mesh.run(backend="inline")


def _fedavg(seed: int, fused: bool = False) -> Result:
    names = _names(PARTIES)
    fuse = [{"lesson": "fuse", "epochs": 2}] if fused else []
    arrives = {"as": "weights", "refresh": "round"}
    rounds = [{"lesson": "own", "epochs": LOCAL}, {"publish": names}, *fuse, {"publish": "server"}]
    mesh = _mesh(seed, program=[{"of": [*names, "server"], "repeat": ROUNDS, "do": rounds}])
    mesh.agent("server", MODEL, init_of="party[0]", **({} if fused else {"update": "merged"}))
    mesh.flow(names, "server", weight="samples", stream="own", **arrives)
    if fused:
        mesh.consensus("ensemble", "mean", space="logits")
        mesh.flow(names, "ensemble", stream="transfer", refresh="round")
        mesh.flow("ensemble", "server", objective="kl", lesson="fuse")
    mesh.flow("server", names, **arrives)
    return mesh.run(backend="inline")


def _one_shot(seed: int, parties: list[nn.Module]) -> Result:
    mesh = Mesh(
        name="one-shot",
        seed=seed,
        data={"dataset": "digits", "transfer": 0.3, "seed": seed},
        train={"batch_size": 32, "epochs": ROUNDS * LOCAL, "optimizer": {"adamw": {"lr": 5e-3}}},
    )
    for name, module in zip(_names(PARTIES), parties, strict=True):
        mesh.agent(name, module, update="frozen")
    mesh.agent("server", MODEL)
    mesh.consensus("ensemble", "mean")
    mesh.flow(_names(PARTIES), "ensemble", stream="transfer")
    mesh.flow("ensemble", "server", objective="kl")
    return mesh.run(backend="inline")


def _pooled(seed: int) -> Result:
    mesh = Mesh(
        name="pooled",
        seed=seed,
        data={"dataset": "digits", "transfer": 0.3, "seed": seed},
        train={"batch_size": 32, "epochs": ROUNDS * LOCAL, "optimizer": {"adamw": {"lr": 5e-3}}},
    )
    mesh.agent("one", MODEL)
    mesh.flow("labels", "one", objective="ce")
    return mesh.run(backend="inline")


def _accuracy(result: Result, name: str) -> float:
    return 100 * float(result[name].metrics["test"]["accuracy"])


def _parties(result: Result) -> float:
    return fmean(_accuracy(result, name) for name in _names(PARTIES))
