"""What the reference says `training` means: models, objectives, rules and gates note how they are called."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import kdmesh
from kdmesh.consensus import Mean
from kdmesh.gates import Gate
from kdmesh.objectives import ForwardKL
from kdmesh.offers import ConsensusOffer, GateOffer, ObjectiveOffer
from kdmesh.plugins import registry

SEEN: set[tuple[str, bool, bool]] = set()


def note(who: str, module: nn.Module) -> None:
    SEEN.add((who, module.training, torch.is_grad_enabled()))


class Model(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.layer = name, nn.Linear(8, 3)

    def forward(self, x):
        if not x.is_meta:  # where a mesh is checked, before anything runs
            note(self.name, self)
        return self.layer(x)


class Loss(ForwardKL):
    def forward(self, student, target, *, form="logits", weights=None):
        note("objective", self)
        return F.mse_loss(student, target, reduction="none").mul(1 if weights is None else weights[:, None]).mean()


class Rule(Mean):
    def setup(self, sources, classes, inputs):
        self.name = f"rule of {' and '.join(sources)}"

    def forward(self, values, **facts):
        note(self.name, self)
        return super().forward(values, **facts)


class Asked(Gate):
    def forward(self, *, losses):
        note("gate", self)
        return True


OFFERS = [
    ObjectiveOffer("noted", f"{__name__}:Loss", forms=("logits",)),
    ConsensusOffer("noted", f"{__name__}:Rule"),
    GateOffer("noted", f"{__name__}:Asked", needs=("losses",)),
]
TEACHES, LEARNS, MEASURED = (True, False), (True, True), (False, False)  # self.training, whether gradients are on


def test_training_is_what_the_reference_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for offer in OFFERS:
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
    split = [(x[rows], x[rows].argmax(1) % 3) for rows in torch.arange(96).split([48, 24, 24])]
    mesh = kdmesh.Mesh(data=kdmesh.data(*split, classes=3), train={"epochs": 1, "batch_size": 16}, placement="together")
    for name in ("frozen", "drawing", "one", "two", "later"):
        mesh.agent(name, Model(name), **({"update": "frozen"} if name in ("frozen", "drawing") else {}))
    mesh.flow("labels", ["one", "two", "later"], objective="ce")
    mesh.flow("frozen", "one", objective="noted", gate="noted")
    mesh.flow("drawing", "one", objective="noted", refresh="step", mode="train")
    for name, sources, reader in (("live", ["one", "two"], "two"), ("stored", ["frozen", "one"], "later")):
        mesh.consensus(name, "noted", space="logits")
        mesh.flow(sources, name, refresh="once" if name == "stored" else "step")
        mesh.flow(name, reader, objective="noted")
    SEEN.clear()
    result = mesh.run(backend="inline")
    found: dict[str, set[tuple[bool, bool]]] = {}
    for who, training, gradients in SEEN:
        found.setdefault(who, set()).add((training, gradients))
    assert found == {
        **{name: {LEARNS, MEASURED} for name in ("one", "two", "later")},
        "frozen": {MEASURED},
        "drawing": {TEACHES, MEASURED},
        "objective": {LEARNS},
        "gate": {TEACHES},
        "rule of one and two": {LEARNS, MEASURED},
        "rule of frozen and one": {LEARNS, MEASURED},
    }
    assert not result["one"].module.training
