"""Six parties that own three classes each and meet in ten rounds; the mesh of the bundled file `parties`.

Li and Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", 2019. Alone, a party has the same initial
weights, shard and batch order. It makes as many updates on its labels as in the rounds (``alone``), or as many as it
makes in the rounds altogether, the digestion of the consensus included (``alone, all updates``).
"""

from __future__ import annotations

from statistics import fmean

from kdmesh import Mesh
from kdmesh.api import Result

ROUNDS = 10


def figures(seed: int) -> dict[str, float]:
    """Return test percentages over all ten classes: of the consensus, of parties on average, and the smallest lift."""
    together = _mesh(seed)
    together.connect(
        "rounds", students=["party[*]"], objective={"kl": {"temperature": 1}}, rounds=ROUNDS, labels_stream="own"
    )
    result = together.run(backend="inline")
    updates = max(agent["updates"] for agent in result.summary["agents"].values())
    after, alone, longer = _accuracy(result), _alone(seed, epochs=ROUNDS), _alone(seed, steps=updates)
    (consensus,) = result.summary["consensus"].values()
    return {
        "parties": fmean(after),
        "alone": fmean(alone),
        "alone, all updates": fmean(longer),
        "consensus": 100 * consensus["metrics"]["test"]["accuracy"],
        "smallest lift": min(a - b for a, b in zip(after, alone, strict=True)),
    }


def _mesh(seed: int, **budget: int) -> Mesh:
    mesh = Mesh(
        name="parties",
        seed=seed,
        data={"dataset": "digits", "transfer": 0.3, "seed": seed},
        streams={"own": {"shards": {"by": "class", "classes": 3, "of": ["party[*]"]}, "private": True}},
        train={"batch_size": 32, "optimizer": {"adamw": {"lr": 5e-3}}, **budget},
    )
    mesh.agent("party", {"mlp": {"hidden": [32]}}, count=6)
    return mesh


def _alone(seed: int, **budget: int) -> list[float]:
    mesh = _mesh(seed, **budget)
    mesh.flow("labels", "party[*]", stream="own", objective="ce")
    return _accuracy(mesh.run(backend="inline"))


def _accuracy(result: Result) -> list[float]:
    return [100 * agent.metrics["test"]["accuracy"] for agent in result.agents.values()]
