"""The claims on ranking: a bi-encoder taught by cross-encoders which questions ask for the same kind of thing.

Run ``python benchmarks/ranking.py DATA [--write]``. DATA holds ``trec/train.csv.gz`` and ``trec/test.csv.gz``, with the
columns ``text``, ``coarse`` and ``fine``: see the top of ``benchmarks/trec.py``. Nothing was collected as a ranking: a
question is relevant to another here exactly if both have the same fine class (of 50).

What was decided before the first run: questions that stand twice are left out, of train also those of test; a tenth of
train is validation. Each question is a query once, with eight candidates of its own split: one of its fine class, up to
three of its coarse class alone (hard negatives), the others of other classes. Texts are counts of words and pairs of
words in 256 columns; no model is pretrained, and none sees the order of words beyond pairs. Teachers are three
cross-encoders, students bi-encoders of one kind that all make 300 updates on batches of 32, half of their loss the
labels' where they have a teacher. With 300 labelled lists the teachers know no others either, and what they say passes
on 1,000 lists without labels. Data and splits are the same for all seeds, all else is drawn anew for each. `best` is
the student of the teacher that is best on validation; `untrained` the control of a teacher that knows nothing. A miss
is printed as MISS, and the exit code stays 0.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from texts import Figures, Report, Threshold, options

from kdmesh import Mesh

CANDIDATES, HARD = 8, 3
VALIDATION = 0.1
TEACHERS = {"wide": {"hidden": [64]}, "deep": {"hidden": [32, 32]}, "dropped": {"hidden": [64], "dropout": 0.3}}
STUDENT = {"bi_encoder": {"hidden": [64], "embedding": 32, "similarity": "cosine", "scale": 10}}
TEACHER_STEPS, STUDENT_STEPS = 200, 300
LABELLED, UNLABELLED = 300, 1000
METRIC = "ndcg"
CLAIMS = (  # points of test nDCG, times 100; written down on 2026-11-29 before any of these runs
    Threshold("student of three", "hard labels", above=0),
    Threshold("student of three", "student of best", above=0),
    Threshold("student of three", "student of untrained", above=0),
)
MARGIN = Threshold("student of three, margins", "hard labels", above=0)
Question = tuple[str, str, str]


def questions(path: Path, taken: Iterable[str] = ()) -> list[Question]:
    """Text, coarse and fine class of each question, once, and none of those that are taken."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["coarse"], f"{row['coarse']}:{row['fine']}") for row in csv.DictReader(file)]
    gone = set(taken)
    return list({row[0]: row for row in rows if row[0] not in gone}.values())


def lists(pool: Sequence[Question], seed: int) -> list[dict[str, Any]]:
    """A line for each question that has another of its fine class in the pool."""
    drawn, made = random.Random(seed), []
    for text, coarse, fine in pool:
        right = [other for other, _, own in pool if own == fine and other != text]
        if not right:
            continue
        near = [other for other, kind, own in pool if kind == coarse and own != fine]
        far = [other for other, kind, _ in pool if kind != coarse]
        hard = drawn.sample(near, min(HARD, len(near)))
        easy = drawn.sample(far, CANDIDATES - 1 - len(hard))
        made.append({"query": text, "positives": [drawn.choice(right)], "negatives": hard + easy, "class": fine})
    drawn.shuffle(made)
    return made


def write(data: Path, folder: Path) -> dict[str, str]:
    """Write the lists of all splits; the settings that read them."""
    test = questions(data / "test.csv.gz")
    train = questions(data / "train.csv.gz", (text for text, _, _ in test))
    random.Random(0).shuffle(train)
    count = round(VALIDATION * len(train))
    parts = {"path": train[count:], "validation_path": train[:count], "test_path": test}
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, (name, pool) in enumerate(parts.items()):
        file = folder / f"{name}.jsonl"
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lists(pool, number)), encoding="utf-8")
        found[name] = str(file)
    return found


def mesh(files: dict[str, str], few: bool, seed: int) -> Mesh:
    """Three teachers, one that knows nothing, and a student of each way of learning."""
    sizes = {"train": LABELLED, "transfer": UNLABELLED} if few else {"train": LABELLED + UNLABELLED}
    optimizer = {"adamw": {"lr": 2e-3}}
    made = Mesh(
        name="ranking-few" if few else "ranking-all",
        task="ranking",
        seed=seed,
        data={"dataset": {"lists": {**files, "dimensions": 256, "ngrams": 2}}, **sizes, "seed": 0},
        train={"steps": STUDENT_STEPS, "batch_size": 32, "optimizer": optimizer},
    )
    for name, settings in TEACHERS.items():
        made.agent(name, {"cross_encoder": settings}, train={"steps": TEACHER_STEPS})
    made.agent("untrained", {"cross_encoder": TEACHERS["wide"]}, update="frozen")
    arms: dict[str, tuple[list[str], str]] = {"three": (list(TEACHERS), "kl")}
    arms |= {f"of-{name}": ([name], "kl") for name in (*TEACHERS, "untrained")}
    if not few:
        arms["margins"] = (list(TEACHERS), "margin_mse")
    for name in ("hard", *arms):
        made.agent(name, STUDENT, seed=seed)  # all start alike
    stream = {"stream": "transfer"} if few else {}
    for name, (teachers, objective) in arms.items():
        made.connect("ensemble", teachers=teachers, student=name, objective=objective, labels=0.5, **stream)
    return made


def part(files: dict[str, str], few: bool, seeds: int, report: Report) -> None:
    """Run all seeds and report them."""
    figures: Figures = {}
    for seed in range(seeds):
        summary = mesh(files, few, seed).run(backend="inline").summary
        test = {name: 100 * agent["metrics"]["test"][METRIC] for name, agent in summary["agents"].items()}
        best = max(TEACHERS, key=lambda name: summary["agents"][name]["metrics"]["validation"][METRIC])
        arms = {f"teacher {name}": test[name] for name in TEACHERS}
        rule = next(iter(summary["consensus"].values()))
        arms["consensus of three"] = 100 * rule["metrics"]["test"][METRIC]
        arms |= {"hard labels": test["hard"], "student of three": test["three"], "student of best": test[f"of-{best}"]}
        arms["student of untrained"] = test["of-untrained"]
        arms |= {} if few else {"student of three, margins": test["margins"]}
        print(seed, {name: round(value, 1) for name, value in arms.items()}, file=sys.stderr, flush=True)
        for name, value in arms.items():
            figures.setdefault(name, []).append(value)
    report(
        f"\n{LABELLED} labelled lists, {UNLABELLED:,} without labels"
        if few
        else f"\n{LABELLED + UNLABELLED:,} labelled lists"
    )
    report.figures(figures, CLAIMS if few else (*CLAIMS, MARGIN), 1)


def main() -> int:
    """Run both parts."""
    given = options(__doc__, "trec", 10)
    report = Report("ranking")
    files = write(given.data, given.out / "ranking-lists")
    count = Path(files["test_path"]).read_text(encoding="utf-8").count("\n")
    report(f"Test nDCG times 100 on {count} queries of {CANDIDATES} candidates, one of them relevant (by chance: 49).")
    report("Mean, 95% t interval and each seed; differences paired by seed.")
    for few in (True, False):
        part(files, few, given.seeds, report)
    report.close(given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
