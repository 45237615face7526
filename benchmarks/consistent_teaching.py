"""The claim on consistent teaching: a teacher that sees the student's own crop teaches more, and the longer the more.

Run ``python benchmarks/consistent_teaching.py FOLDER [--seeds N]``, or ``make consistent-teaching DATA=FOLDER``; the
folder has Fashion-MNIST in the IDX form, four files. A seed takes about 20 minutes of a CPU; those that are done stand
in `--out`, and the same command goes on. After L. Beyer, X. Zhai, A. Royer, L. Markeeva, R. Anil,
A. Kolesnikov, Knowledge distillation: A good teacher is patient and consistent, CVPR 2022.

For each seed (`data.seed` moves with it) a teacher, a convolutional network, learns labels of all of train under moved
and mirrored images. Then equal small networks, from the same initial weights, over the same batches and the same moved
and mirrored images, learn from this teacher's answers alone, on 5,000 images, for 10 and for 100 epochs. What the
teacher sees differs:

- `fixed`: the image as it is, as if it had answered once
- `unlike`: the image moved and mirrored otherwise
- `same`: what the student sees
- `mixed`: what the student sees, where both see the same mixup of it (alpha 1)

Expected, and written down before the first run, of accuracy on test in points, by pairs of seeds:

1. after 100 epochs `same` is above `unlike`, and above `fixed`
2. `same` gains more from 100 epochs in place of 10 than `fixed` does
3. after 100 epochs `mixed` is above `same`; after 10 it is below
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import kdmesh
from kdmesh.statistics import interval, paired, verdicts

ARMS = ("fixed", "unlike", "same", "mixed")
CROPS: list[Any] = [{"shift": {"pixels": 6}}, "flip"]
ADAM = {"adamw": {"lr": 2e-3}}


def data(folder: str, seed: int, train: int | None) -> dict[str, Any]:
    """The data section; ``train``: how many images to learn from, None: all that are left of 60,000."""
    found: dict[str, Any] = {"dataset": {"idx": {"folder": folder}}, "seed": seed, "validation": 2000}
    return found if train is None else {**found, "train": train}


def teacher(folder: str, seed: int, asked: argparse.Namespace) -> tuple[Any, float]:
    """A trained teacher's module, and its accuracy on test in points."""
    mesh = kdmesh.Mesh(
        name="teacher",
        data=data(folder, seed, asked.train),
        seed=seed,
        agents={"t": {"model": {"cnn": {"width": 32}}, "view": {"augment": CROPS}}},
        flows=[{"from": "labels", "to": "t", "objective": "ce"}],
        train={"epochs": asked.teacher_epochs, "batch_size": 128, "optimizer": ADAM, "schedule": "cosine"},
    )
    found = mesh.run(backend="inline", store="off")
    return found["t"].module, 100 * found.summary["agents"]["t"]["metrics"]["test"]["accuracy"]


def students(folder: str, seed: int, module: Any, epochs: int, asked: argparse.Namespace) -> dict[str, float]:
    """Accuracy on test in points, by arm."""
    mesh = kdmesh.Mesh(
        name="students",
        data=data(folder, seed, asked.train),
        seed=seed,
        streams={"few": {"of": "train", "size": asked.samples}},
        train={"epochs": epochs, "batch_size": 128, "optimizer": ADAM, "schedule": "cosine"},
    )
    mesh.agent("t_fixed", module, update="frozen")
    mixed = {"of": "fixed", "augment": [*CROPS, "mixup"]}
    own = {"unlike": {"augment": CROPS}, "same": {"of": "fixed"}, "mixed": mixed}
    for arm, view in own.items():
        mesh.agent(f"t_{arm}", weights_of="t_fixed", view=view)
    for arm in ARMS:
        seen = {"augment": CROPS} if arm == "fixed" else mixed if arm == "mixed" else {"of": "fixed"}
        mesh.agent(arm, {"cnn": {"width": 8}}, view=seen, seed=seed)
        mesh.flow(f"t_{arm}", arm, objective={"kl": {"temperature": 2}}, stream="few")
    found = mesh.run(backend="inline", store="off").summary["agents"]
    return {arm: 100 * found[arm]["metrics"]["test"]["accuracy"] for arm in ARMS}


def one(seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """The accuracies of a seed: its teacher's, and those of students by arm and length."""
    module, accuracy = teacher(asked.folder, seed, asked)
    known: dict[str, Any] = {"teacher": accuracy}
    for length in asked.epochs:
        made = students(asked.folder, seed, module, length, asked)
        known |= {f"{arm} {length}": value for arm, value in made.items()}
    return known


def main() -> int:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="train- and t10k- images and labels, plain or .gz")
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument("--epochs", default=[10, 100], type=int, nargs=2, help="short and long")
    parser.add_argument("--samples", default=5000, type=int, help="images that students see")
    parser.add_argument("--train", type=int, help="images that the teacher learns from; by default all")
    parser.add_argument("--teacher-epochs", default=10, type=int)
    parser.add_argument(
        "--out", default="build/consistent-teaching", help="a file for each seed, which is not made again"
    )
    asked = parser.parse_args()
    short, long = asked.epochs
    found: dict[tuple[str, int], list[float]] = {(arm, length): [] for length in asked.epochs for arm in ARMS}
    started, teachers = perf_counter(), []
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    how = {name: value for name, value in vars(asked).items() if name not in ("folder", "seeds", "out")}
    for seed in range(asked.seeds):
        file = out / f"seed-{seed}.json"
        known = json.loads(file.read_text()) if file.exists() else one(seed, asked)
        if known.setdefault("how", how) != how:
            parser.error(f"{file} is of other settings: {known['how']}; remove it, or name another --out")
        file.write_text(json.dumps(known))
        teachers.append(known["teacher"])
        for arm, length in found:
            found[arm, length].append(known[f"{arm} {length}"])
        print(f"seed {seed}, {perf_counter() - started:.0f} s: teacher {teachers[-1]:.2f}, " + ", ".join(
            f"{arm} {length}: {values[-1]:.2f}" for (arm, length), values in found.items()), flush=True)  # fmt: skip
    rows = {f"{arm}, {length} epochs": values for (arm, length), values in found.items()}
    for name, values in {"teacher": teachers, **rows}.items():
        mean, half = interval(values)
        print(f"  {name:20} {mean:6.2f} ± {half or 0:.2f}")
    gains = {arm: [b - a for a, b in zip(found[arm, short], found[arm, long], strict=True)] for arm in ARMS}
    claims = [
        (f"same minus unlike, {long} epochs", found["same", long], found["unlike", long]),
        (f"same minus fixed, {long} epochs", found["same", long], found["fixed", long]),
        (f"gain from {long} in place of {short} epochs, same minus fixed", gains["same"], gains["fixed"]),
        (f"mixed minus same, {long} epochs", found["mixed", long], found["same", long]),
        (f"mixed minus same, {short} epochs (expected below 0)", found["mixed", short], found["same", short]),
    ]
    pairs = [paired(mine, others) for _, mine, others in claims]
    for (name, *_), pair, said in zip(claims, pairs, verdicts(pairs), strict=True):
        ends = "" if said["low"] is None else f" (95% {said['low']:+.2f} to {said['high']:+.2f})"
        print(f"  {name}: {round(pair['mean'], 2) + 0.0:+.2f}{ends}, larger in {pair['wins']}: {said['verdict']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
