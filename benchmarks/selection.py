"""Chosen training sets against random ones: ``python benchmarks/selection.py``, one thread, some minutes.

On digits, with splits of their own for each seed: a student is trained on the labels and three teachers' mean of few
training samples, chosen by each criterion of `kdmesh select`, or at random. Who chooses has seen the training split
alone: teachers are trained on it; the student whose loss or likely answers count, on a random tenth. All settings stood
before the first run; test accuracy is reported and nothing is chosen by it. Differences to random are paired by seed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from scipy.stats import t

import kdmesh
from kdmesh.selection.select import select, write_selection

TEACHERS = {"t1": [64], "t2": [128], "t3": [64, 64]}
BY: dict[str, dict[str, dict[str, Any]]] = {
    "random": {"random": {}},
    "disagreement": {"disagreement": {}},
    "teachability": {"teachability": {"k": 3}},
    "loss": {"loss": {}},
    "diversity": {"diversity": {}},
    "loss, diversity": {"loss": {}, "diversity": {}},
    "teachability, diversity": {"teachability": {"k": 3}, "diversity": {}},
}
KEEP = (50, 200)
STEPS = {"optimizer": {"adamw": {"lr": 3e-3}}, "batch_size": 32}


def fields(seed: int, steps: int) -> dict[str, Any]:
    return {"data": {"dataset": "digits", "seed": seed}, "seed": seed, "train": {**STEPS, "steps": steps}}


def teachers(seed: int, steps: int, folder: Path) -> dict[str, str]:
    """Weights of the teachers, trained on the training split, and of a student trained on a random tenth of it."""
    mesh = kdmesh.Mesh(**fields(seed, steps), streams={"tenth": {"of": "train", "size": 0.1}})
    for name, hidden in {**TEACHERS, "s": [32]}.items():
        mesh.agent(name, {"mlp": {"hidden": hidden}})
        mesh.flow("labels", name, objective="ce", **({"stream": "tenth"} if name == "s" else {}))
    run = mesh.run(backend="inline", out=folder, store="off")
    assert run.folder is not None
    return {name: str(run.folder / "agents" / name / "model.safetensors") for name in run.agents}


def taught(seed: int, steps: int, weights: dict[str, str], stream: dict[str, Any], whole: bool = False) -> kdmesh.Mesh:
    """A mesh in which a fresh student learns from labels and the teachers' mean on a stream."""
    mesh = kdmesh.Mesh(**fields(seed, steps), streams={} if whole else {"core": stream})
    for name, hidden in TEACHERS.items():
        mesh.agent(name, {"mlp": {"hidden": hidden}}, update="frozen", weights=weights[name])
    mesh.agent("s", {"mlp": {"hidden": [32]}})
    mesh.consensus("c", "mean", temperature=4.0)
    mesh.flow(list(TEACHERS), "c", stream="train" if whole else "core")
    on = {} if whole else {"stream": "core"}
    mesh.flow("labels", "s", objective="ce", weight=0.5, **on)
    mesh.flow("c", "s", objective={"kl": {"temperature": 4.0}}, weight=0.5, **on)
    return mesh


def accuracy(mesh: kdmesh.Mesh, store: str) -> float:
    return 100 * float(mesh.run(backend="inline", store=store)["s"].metrics["test"]["accuracy"])


def one_seed(seed: int, steps: int, folder: Path) -> dict[tuple[int, str], float]:
    """Test accuracy by size and criterion; of all training samples under size 0."""
    weights, store = teachers(seed, steps, folder), str(folder / "store")
    mesh = kdmesh.Mesh(**fields(seed, steps))
    for name, hidden in TEACHERS.items():
        mesh.agent(name, {"mlp": {"hidden": hidden}}, update="frozen", weights=weights[name])
    mesh.agent("s", {"mlp": {"hidden": [32]}}, weights=weights["s"])
    mesh.flow("labels", "s", objective="ce")
    for name in TEACHERS:
        mesh.flow(name, "s", objective="kl")
    plan = mesh.plan()
    found = {(0, "all"): accuracy(taught(seed, steps, weights, {}, whole=True), store)}
    for keep in KEEP:
        for name, by in BY.items():
            record = select(plan, by, keep, student="s", seed=seed, store=store)[1]
            path = folder / f"{keep}-{name}.json"
            write_selection(path, record)
            chosen = taught(seed, steps, weights, {"of": "train", "select": str(path)})
            found[keep, name] = accuracy(chosen, store)
    return found


def interval(values: list[float]) -> str:
    """The mean with its 95% interval, of Student's t."""
    found = torch.tensor(values, dtype=torch.float64)
    half = float(t.ppf(0.975, len(found) - 1) * found.std() / len(found) ** 0.5)
    return f"{found.mean():+.2f} ({found.mean() - half:+.2f} to {found.mean() + half:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=400, help="updates of everyone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun, runs = time.process_time(), []
    for seed in range(args.seeds):
        with TemporaryDirectory() as folder:
            runs.append(one_seed(seed, args.steps, Path(folder)))
    print(f"all training samples: {sum(run[0, 'all'] for run in runs) / len(runs):.2f}\n")
    print("| samples | chosen by | test accuracy, % | minus random, points (95%) | better in |\n|---|---|---|---|---|")
    for keep in KEEP:
        for name in BY:
            mean = sum(run[keep, name] for run in runs) / len(runs)
            gains = [run[keep, name] - run[keep, "random"] for run in runs]
            told = "" if name == "random" else interval(gains)
            wins = "" if name == "random" else f"{sum(gain > 0 for gain in gains)}/{len(gains)}"
            print(f"| {keep} | {name} | {mean:.2f} | {told} | {wins} |")
    print(f"\n{args.seeds} seeds, {args.steps} updates each, {time.process_time() - begun:.0f} CPU s")


if __name__ == "__main__":
    main()
