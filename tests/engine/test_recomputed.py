"""Every printed figure of small random meshes, computed again from the models' own answers, with numpy alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import kdmesh
from kdmesh.engine.check import examine


def figures(logits: Any, y: Any) -> dict[str, float]:
    """Accuracy, mean cross-entropy in nats, and calibration in 15 equal bins, at temperature 1."""
    z = np.asarray(logits, dtype=np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    right, confidence = p.argmax(1) == y, p.max(1)
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs((right[bins == b] - confidence[bins == b]).sum()) for b in range(15)]
    return {"accuracy": right.mean(), "loss": -np.log(p[np.arange(len(y)), y]).mean(), "ece": sum(gaps) / len(y)}


def softened(logits: Any, temperature: float) -> Any:
    p = np.exp(logits / temperature - (logits / temperature).max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def drawn(number: int) -> tuple[kdmesh.Mesh, float]:
    """Two pairs of teachers, each with a student of its own, on unbalanced classes that overlap."""
    draw = np.random.default_rng(number)
    x = torch.tensor(draw.normal(size=(160, 4)), dtype=torch.float32)
    noise = torch.tensor(draw.normal(size=160), dtype=torch.float32)
    y = (x[:, 0] + noise > 0.4).long() + (x[:, 1] > 1).long()
    temperature = float(draw.choice([1.0, 2.0, 4.0]))
    made = kdmesh.Mesh(
        data=kdmesh.data((x[:80], y[:80]), (x[80:110], y[80:110]), (x[110:], y[110:]), classes=3),
        seed=number,
        train={"steps": 12, "batch_size": 16, "optimizer": {"sgd": {"lr": 0.5}}},
    )
    for pair in ("ab", "cd"):
        for name in pair:
            made.agent(name, {"mlp": {"hidden": [int(draw.integers(1, 6))]}})
        made.flow("labels", list(pair), objective="ce")
        made.consensus(f"of_{pair}", "mean")
        made.flow(list(pair), f"of_{pair}")
        student = made.agent(f"s_{pair}", {"mlp": {"hidden": [3]}})
        made.flow(f"of_{pair}", student, objective={"kl": {"temperature": temperature}})
    return made, temperature


@pytest.mark.parametrize("number", range(2))
def test_every_figure_is_what_the_answers_give(number: int, tmp_path: Path) -> None:
    made, temperature = drawn(number)
    result = made.run(backend="inline", out=tmp_path, seeds=3)
    found = examine(made.plan(), {}, made.table)
    assert found.table.y is not None
    rows = {split: found.streams[split].rows for split in ("validation", "test")}
    close: dict[str, Any] = {"rel": 1e-4, "abs": 1e-6}
    tests: dict[str, list[float]] = {}
    best: dict[str, list[float]] = {"s_ab": [], "s_cd": []}
    for one in result.seeds:
        expected: dict[str, dict[str, dict[str, float]]] = {}
        for split, at in rows.items():
            x, y = found.table.x[at], found.table.y[at].numpy()
            with torch.no_grad():
                said = {name: agent.module(x).numpy().astype(np.float64) for name, agent in one.agents.items()}
            for name, logits in said.items():
                expected.setdefault(name, {})[split] = figures(logits, y)
            for pair in ("ab", "cd"):  # the mean of softened answers, and the same answers at temperature 1
                mixed = np.mean([softened(said[name], temperature) for name in pair], axis=0)
                expected.setdefault(f"of_{pair}", {})[split] = figures(np.log(mixed) * temperature, y)
        nodes = {**one.summary["consensus"], **one.summary["agents"]}
        for name, splits in expected.items():
            for split, values in splits.items():
                assert nodes[name]["metrics"][split] == pytest.approx(values, **close), (name, split)
            tests.setdefault(name, []).append(splits["test"]["accuracy"])
        for pair in ("ab", "cd"):
            chosen = max(pair, key=lambda name: expected[name]["validation"]["accuracy"])
            assert one.summary["agents"][f"s_{pair}"]["best_teacher"] == chosen
            best[f"s_{pair}"].append(expected[chosen]["test"]["accuracy"])
        chosen = max("abcd", key=lambda name: expected[name]["validation"]["accuracy"])
        assert one.summary["best_teacher"] == chosen
    over = result.table["over_seeds"]
    for name, values in tests.items():
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
        estimate = over["accuracy"][name]
        assert (estimate["mean"], estimate["half_width"], estimate["n"]) == pytest.approx((np.mean(values), half, 3))
    for student, rivals in best.items():
        pair = over["differences"][student]["best teacher"]
        minus = np.subtract(tests[student], rivals)
        counted = ((minus > 1e-9).sum(), (abs(minus) <= 1e-9).sum(), 3)
        assert pair["mean"] == pytest.approx(minus.mean()) and (pair["wins"], pair["ties"], pair["n"]) == counted
    assert result.folder is not None
    with (result.folder / "results.csv").open(encoding="utf-8") as sheet:
        written = {(r["seed"], r["node"], r["split"], r["metric"]): float(r["value"]) for r in csv.DictReader(sheet)}
    assert len(written) == 3 * 8 * 2 * 3
    for name, values in tests.items():
        for seed, value in enumerate(values, start=number):
            assert written[str(seed), name, "test", "accuracy"] == pytest.approx(value)
