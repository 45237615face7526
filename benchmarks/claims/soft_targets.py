"""Hard labels and soft targets, for students with 50 samples, and for students that never see a class.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. Within a seed all students of one
experiment have the same initial weights, samples and batch order, and make the same number of updates.
"""

from __future__ import annotations

import torch

from kdmesh import Mesh
from kdmesh.builtin.datasets.digits import digits
from kdmesh.streams.stream import resolve

OMITTED = 3  # the class that Hinton et al. leave out of MNIST
FEW = {"steps": 400, "batch_size": 25}
REST = {"epochs": 30}


def figures(seed: int) -> dict[str, float]:
    """Train a teacher on 1,000 samples, then all students; returns percentages of the test split, or of its threes."""
    mesh = Mesh(
        name="soft-targets",
        seed=seed,
        data={"dataset": "digits", "train": 1000, "seed": seed},
        streams={"few": {"of": "train", "size": 50}, "rest": {"of": "train", "without": [OMITTED]}},
        train={"epochs": 30, "batch_size": 64, "optimizer": {"adamw": {"lr": 5e-3}}},
    )
    mesh.agent("teacher", {"mlp": {"hidden": [256, 256]}})
    mesh.flow("labels", "teacher", stream="train", objective="ce")
    for stream, train, temperatures in (("few", FEW, (1, 4, 10)), ("rest", REST, (4,))):
        hard = mesh.agent(f"{stream}-hard", {"mlp": {"hidden": [64]}}, train=train)
        mesh.flow("labels", hard, stream=stream, objective="ce")
        for t in temperatures:
            soft = mesh.agent(f"{stream}-soft-{t}", {"mlp": {"hidden": [64]}}, train=train, init_of=hard)
            mesh.flow("teacher", soft, stream=stream, objective={"kl": {"temperature": t}})
    result = mesh.run(backend="inline")

    spec, table = mesh.plan().spec, digits()
    assert spec.data is not None and table.y is not None
    test = resolve(table, spec.data, {})["test"].rows
    omitted = test[table.y[test] == OMITTED]
    found = {name: 100 * agent.metrics["test"]["accuracy"] for name, agent in result.agents.items()}
    for name in ("rest-hard", "rest-soft-4"):
        with torch.no_grad():
            predictions = result[name].module(table.x[omitted]).argmax(1)
        found[f"{name}, class {OMITTED}"] = 100 * (predictions == OMITTED).float().mean().item()
    return found
