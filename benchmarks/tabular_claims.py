"""The claim on tables: a small perceptron learns more from gradient boosting than from labels or from a larger one.

Run ``python benchmarks/tabular_claims.py [--seeds N]``, or ``make tabular-claims``; it needs the extra `lightgbm`. For
each seed there is one mesh with one split of its own (`data.seed` moves with the seed): gradient boosting with
LightGBM's defaults, trained on the mesh's `train` as its agent sees it; a larger perceptron, trained by the mesh; and
three equal small perceptrons with the same initial weights and batches: of labels alone, of labels and boosting, of
labels and the larger perceptron. Settings and claims were written down before the first run.

Data: 569 tumours with 30 measurements, of scikit-learn (measured), and a table like that of a census, with words and
gaps, made by examples/tabular/census.py (made: it says nothing about real people).
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: matrices this small are fastest on one thread

import lightgbm
import yaml
from sklearn.datasets import load_breast_cancer

import kdmesh
from kdmesh.statistics import interval, paired, verdicts

EXAMPLE = Path(__file__).parents[1] / "examples" / "tabular"
ORDINAL = [
    {"columns": "numbers", "missing": "?", "impute": "median"},
    {"columns": "categories", "missing": "?", "impute": "most_frequent", "encode": "ordinal"},
]
TAUGHT = {"labels": 0.5, "objective": {"kl": {"temperature": 2}}}
EPOCHS = {"tumours": 60, "census": 15}
ARMS = {"plain": "labels alone", "boosted_student": "labels and boosting", "wide_student": "labels and the larger one"}


def written(folder: Path) -> dict[str, dict[str, Any]]:
    """The data sections of both tables, whose files are made."""
    found = load_breast_cancer()
    with (folder / "tumours.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow([*found.feature_names, "kind"])
        out.writerows(
            [*map(float, row), found.target_names[kind]] for row, kind in zip(found.data, found.target, strict=True)
        )
    sys.path.insert(0, str(EXAMPLE))
    import census

    census.write(folder, rows=8000)
    table = yaml.safe_load((EXAMPLE / "census.yaml").read_text(encoding="utf-8"))["data"]
    tumours = {"path": str(folder / "tumours.csv"), "label": "kind"}
    people = {"path": str(folder / "census.csv"), "label": "income"}
    return {
        "tumours": {"dataset": {"csv": tumours}, "prepare": [{"columns": "numbers", "scale": "standard"}]},
        "census": {"dataset": {"csv": people}, "prepare": table["prepare"]},
    }


def mesh(name: str, data: dict[str, Any], seed: int, file: Path) -> kdmesh.Mesh:
    """Teachers, and three students that begin alike."""
    small, wide = {"mlp": {"hidden": [8]}}, {"mlp": {"hidden": [128, 128]}}
    boosted = {
        "model": {"lightgbm": {"path": str(file)}},
        "update": "frozen",
        "prepare": ORDINAL[: 1 + (name == "census")],
    }
    agents = {"boosted": boosted, "wide": {"model": wide}}
    agents |= {arm: {"model": small, "seed": seed} for arm in ARMS}
    connect = [
        {"ensemble": {"teachers": teacher, "student": f"{teacher}_student", **TAUGHT}}
        for teacher in ("boosted", "wide")
    ]
    return kdmesh.Mesh(
        name=name,
        data={**data, "seed": seed},
        agents=agents,
        connect=connect,
        seed=seed,
        train={"epochs": EPOCHS[name], "batch_size": 64},
    )


def figures(name: str, data: dict[str, Any], seed: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Accuracy in points and loss on test, by agent, of one seed."""
    file = folder / "boosted.txt"
    x, y, _ = mesh(name, data, seed, file).samples("train", agent="boosted")
    assert y is not None
    how = {"objective": "multiclass", "num_class": 2, "verbose": -1, "num_threads": 1, "seed": seed}
    lightgbm.train(how, lightgbm.Dataset(x.numpy(), y.numpy()), 100).save_model(file)
    found = mesh(name, data, seed, file).run(backend="inline", store="off").summary["agents"]
    tests = {agent: facts["metrics"]["test"] for agent, facts in found.items()}
    return {agent: (100 * one["accuracy"], one["loss"]) for agent, one in tests.items()}


def tell(name: str, data: dict[str, Any], seeds: int, folder: Path) -> None:
    """Run and print one table."""
    started, found = perf_counter(), []
    for seed in range(seeds):
        found.append(figures(name, data, seed, folder))
        print(f"  {name}, seed {seed}: " + ", ".join(f"{one} {v[0]:.2f}" for one, v in found[-1].items()), flush=True)
    print(f"{name}, {seeds} seeds, {perf_counter() - started:.0f} s")
    for agent in ("boosted", "wide", *ARMS):
        values = [one[agent] for one in found]
        (mean, half), (loss, spread) = interval([v[0] for v in values]), interval([v[1] for v in values])
        print(
            f"  {ARMS.get(agent, agent):26} accuracy {mean:6.2f} ± {half or 0:.2f}, loss {loss:.4f} ± {spread or 0:.4f}"
        )
    others = ("plain", "wide_student")
    mine = [one["boosted_student"][0] for one in found]
    pairs = [paired(mine, [one[other][0] for one in found]) for other in others]
    for other, pair, said in zip(others, pairs, verdicts(pairs), strict=True):
        ends = "" if said["low"] is None else f" (95% {said['low']:+.2f} to {said['high']:+.2f})"
        count = f"better in {pair['wins']}, equal in {pair['ties']} of {seeds}"
        mean = f"{round(pair['mean'], 2) + 0.0:+.2f}{ends}"
        print(f"  boosting's student minus {ARMS[other]}: {mean}, {count}: {said['verdict']}")


def main() -> int:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default=10, type=int)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, data in written(Path(folder)).items():
            tell(name, data, asked.seeds, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
