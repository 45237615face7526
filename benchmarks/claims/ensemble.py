"""Five small models on 400 samples, and the mean of their probabilities.

Hansen and Salamon, "Neural Network Ensembles", 1990. The members differ in their initial weights only.
"""

from __future__ import annotations

from statistics import fmean

from kdmesh import Mesh

MEMBERS = [f"m{i}" for i in range(5)]


def figures(seed: int) -> dict[str, float]:
    """Return test percentages of the consensus, of its members on average, and of the best member by validation."""
    mesh = Mesh(
        name="ensemble",
        seed=seed,
        data={"dataset": "digits", "train": 400, "seed": seed},
        train={"epochs": 30, "batch_size": 32, "optimizer": {"adamw": {"lr": 5e-3}}},
    )
    for name in MEMBERS:
        mesh.agent(name, {"mlp": {"hidden": [16]}})
    mesh.flow("labels", MEMBERS, objective="ce")
    mesh.flow(MEMBERS, mesh.consensus("ensemble", "mean", temperature=1), stream="train")
    result = mesh.run(backend="inline")
    test = {name: 100 * result[name].metrics["test"]["accuracy"] for name in MEMBERS}
    best = max(MEMBERS, key=lambda name: result[name].metrics["validation"]["accuracy"])  # the first of equals
    together = result.summary["consensus"]["ensemble"]["metrics"]["test"]["accuracy"]
    return {"ensemble": 100 * together, "members, mean": fmean(test.values()), "best by validation": test[best]}
