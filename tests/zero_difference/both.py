"""One mesh for kdmesh, and its agents' initial weights, samples and order for a plain loop."""

from __future__ import annotations

from functools import partial
from typing import Any

import plain
import torch

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.hosts.modules import build
from kdmesh.plugins import registry
from kdmesh.streams.order import epoch_order

EPOCHS, SIZE = 3, 64
MLP, CNN = {"mlp": {"hidden": [24]}}, {"cnn": {"width": 4}}
LARGE = {"mlp": {"hidden": [48, 32]}}
# fused, as kdmesh makes them: other implementations of the same optimiser round differently
OPTIMIZERS: dict[str, tuple[dict[str, Any], plain.MakeOptimizer]] = {
    "adamw": ({"adamw": {"lr": 3e-3}}, partial(torch.optim.AdamW, lr=3e-3, fused=True)),
    "sgd": ({"sgd": {"lr": 0.05, "momentum": 0.9}}, partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True)),
}


class Both:
    """One mesh, run by kdmesh; and its agents' initial modules and data, for a plain loop."""

    def __init__(
        self,
        optimizer: str,
        models: dict[str, Any],
        strategy: str,
        *,
        gates: dict[str, Any] | None = None,
        more: dict[str, dict[str, Any]] | None = None,
        **fields: Any,
    ) -> None:
        config, self.make = OPTIMIZERS[optimizer]
        self.mesh = kdmesh.Mesh(
            data={"dataset": "digits", "train": 150},  # 64, 64 and 22 samples a batch
            seed=7,
            train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": config},
        )
        for name, model in models.items():
            self.mesh.agent(name, model, **({"gate": gates[name]} if gates else {}), **(more or {}).get(name, {}))
        if strategy:
            self.mesh.connect(strategy, **fields)
        plan = self.mesh.plan()
        found = examine(plan)
        table, rows = found.table, found.streams["train"].rows
        assert table.y is not None
        orders = [epoch_order(7, "train", epoch, len(rows)) for epoch in range(EPOCHS)]
        assert len(rows) % SIZE, "the last batch is to be smaller"
        self.data = plain.Data(table.x[rows], table.y[rows], orders, SIZE)
        self.modules = {name: build(plan, name, found.reading, registry(), {}) for name in plan.spec.agents}

    def learn(self, *names: str) -> None:
        """Train agents from labels, plainly."""
        for name in names:
            plain.supervised(self.modules[name], self.data, self.make)

    def difference(self) -> float:
        """Run the mesh; the largest difference of any weight of any agent to the plain modules'."""
        result = self.mesh.run(backend="inline")
        return max(
            (ours - theirs).abs().max().item()
            for name, module in self.modules.items()
            for ours, theirs in zip(result[name].module.parameters(), module.parameters(), strict=True)
        )
