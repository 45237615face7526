"""Parties with samples of their own, unequal by class, and what each way to learn from one another brings them.

Six parties share out the training samples by class, Dirichlet 0.5; some samples have no labels and are public. Every
party begins with the same weights, learns ``rounds * local`` epochs of its own samples, and is measured on all classes.

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

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from attackers import Committee, LeastLikely
from torch import nn

from kdmesh import Mesh
from kdmesh.api import Result

PARTIES, LIARS = 6, 4
RULES: dict[str, str | dict[str, Any]] = {
    "mean": "mean",
    "median": "median",
    "trimmed mean": {"trimmed_mean": {"trim": 0.4}},
    "geometric median": "geometric_median",
    "eigenvector filter": {"eigen_filter": {"share": 0.4}},
    "ExpGuard": "expguard",
}


@dataclass(frozen=True)
class Setting:
    """What the parties have, and how they learn; everyone has the same model."""

    data: dict[str, Any]
    model: dict[str, Any]
    rate: float
    rounds: int
    local: int = 2  # epochs of a round on a party's own samples

    def of(self, seed: int) -> dict[str, Any]:
        """The fields of every mesh; another seed is another division of the data, too."""
        train = {"batch_size": 32, "optimizer": {"adamw": {"lr": self.rate}}}
        return {"seed": seed, "data": {**self.data, "seed": seed}, "train": train}


DIGITS = Setting({"dataset": "digits", "transfer": 0.3}, {"mlp": {"hidden": [32]}}, 5e-3, 5)


def fashion(folder: str) -> Setting:
    """Fashion-MNIST, of a folder with its four files: 6,000 samples of parties, 4,000 public, 10,000 to test."""
    data = {"dataset": {"idx": {"folder": folder}}, "train": 6000, "transfer": 4000, "validation": 1000}
    return Setting(data, {"mlp": {"hidden": [100]}}, 1e-3, 10)


def honest(seed: int, setting: Setting = DIGITS) -> tuple[dict[str, float], list[nn.Module]]:
    """Test percentages without liars, of parties on average, or of the server or the pooled model; and the parties that
    learned alone.
    """
    alone = _alone(seed, setting)
    modules = [alone[name].module for name in _names(PARTIES)]
    found = {
        "alone": _parties(alone),
        "FedMD": _parties(_fedmd(seed, setting)),
        "FedAvg": _accuracy(_fedavg(seed, setting), "server"),
        "FedDF": _accuracy(_fedavg(seed, setting, fused=True), "server"),
        "one-shot": _accuracy(_one_shot(seed, setting, modules), "server"),
        "pooled": _accuracy(_pooled(seed, setting), "one"),
    }
    return found, modules


def figures(seed: int) -> dict[str, float]:
    """Return test percentages on digits, also with liars."""
    found, modules = honest(seed)
    lie = LeastLikely(Committee(modules))
    return found | {f"{name}, attacked": _parties(_fedmd(seed, DIGITS, lie, rule)) for name, rule in RULES.items()}


def _names(count: int) -> list[str]:
    return [f"party[{number}]" for number in range(count)]


def _mesh(seed: int, setting: Setting, **fields: Any) -> Mesh:
    """The parties and their shards, all with the same initial weights."""
    own = {"shards": {"by": "dirichlet", "alpha": 0.5, "of": _names(PARTIES)}, "private": True}
    mesh = Mesh(name="federated", streams={"own": own}, **setting.of(seed), **fields)
    for name in _names(PARTIES):
        mesh.agent(name, setting.model, **({} if name == "party[0]" else {"init_of": "party[0]"}))
    mesh.flow("labels", _names(PARTIES), stream="own", objective="ce", lesson="own")
    return mesh


def _alone(seed: int, setting: Setting) -> Result:
    epochs = setting.rounds * setting.local
    lessons = [{"of": [name], "lesson": "own", "epochs": epochs} for name in _names(PARTIES)]
    return _mesh(seed, setting, program=lessons).run(backend="inline")


def _fedmd(seed: int, setting: Setting, lie: nn.Module | None = None, rule: str | dict[str, Any] = "mean") -> Result:
    names, liars = _names(PARTIES), [f"liar[{number}]" for number in range(LIARS if lie is not None else 0)]
    publish = {"publish": names}
    rounds = [{"lesson": "own", "epochs": setting.local}, publish, {"lesson": "digest", "epochs": 1}]
    mesh = _mesh(seed, setting, program=[{"of": names, "repeat": setting.rounds, "do": rounds}])
    mesh.consensus("agreed", rule)
    mesh.flow(names, "agreed", stream="transfer", refresh="round")
    for name in liars:
        mesh.agent(name, lie, update="frozen")
        mesh.flow(name, "agreed", stream="transfer")
    mesh.flow("agreed", names, objective="kl", lesson="digest")
    return mesh.run(backend="inline")


def _fedavg(seed: int, setting: Setting, fused: bool = False) -> Result:
    names = _names(PARTIES)
    fuse = [{"lesson": "fuse", "epochs": 2}] if fused else []
    arrives = {"as": "weights", "refresh": "round"}
    rounds = [{"lesson": "own", "epochs": setting.local}, {"publish": names}, *fuse, {"publish": "server"}]
    mesh = _mesh(seed, setting, program=[{"of": [*names, "server"], "repeat": setting.rounds, "do": rounds}])
    mesh.agent("server", setting.model, init_of="party[0]", **({} if fused else {"update": "merged"}))
    mesh.flow(names, "server", weight="samples", stream="own", **arrives)
    if fused:
        mesh.consensus("ensemble", "mean", space="logits")
        mesh.flow(names, "ensemble", stream="transfer", refresh="round")
        mesh.flow("ensemble", "server", objective="kl", lesson="fuse")
    mesh.flow("server", names, **arrives)
    return mesh.run(backend="inline")


def _single(name: str, seed: int, setting: Setting) -> Mesh:
    """A mesh without rounds, for as many epochs as parties have."""
    fields = setting.of(seed)
    fields["train"]["epochs"] = setting.rounds * setting.local
    return Mesh(name=name, **fields)


def _one_shot(seed: int, setting: Setting, parties: list[nn.Module]) -> Result:
    mesh = _single("one-shot", seed, setting)
    for name, module in zip(_names(PARTIES), parties, strict=True):
        mesh.agent(name, module, update="frozen")
    mesh.agent("server", setting.model)
    mesh.consensus("ensemble", "mean")
    mesh.flow(_names(PARTIES), "ensemble", stream="transfer")
    mesh.flow("ensemble", "server", objective="kl")
    return mesh.run(backend="inline")


def _pooled(seed: int, setting: Setting) -> Result:
    mesh = _single("pooled", seed, setting)
    mesh.agent("one", setting.model)
    mesh.flow("labels", "one", objective="ce")
    return mesh.run(backend="inline")


def _accuracy(result: Result, name: str) -> float:
    return 100 * float(result[name].metrics["test"]["accuracy"])


def _parties(result: Result) -> float:
    return fmean(_accuracy(result, name) for name in _names(PARTIES))
