"""Make a table like that of a census: ages, work, schooling, gaps written as ?, and who earns much.

    python census.py [FOLDER] [--rows 4000] [--seed 0]

writes census.csv and census-test.csv, which census.yaml reads. The people are made up: nothing here says anything about
real ones.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

COLUMNS = ["age", "workclass", "education", "hours", "gain", "occupation", "postcode", "income"]
SCHOOLING = ["primary", "secondary", "bachelor", "master", "doctorate"]
WORK = ["private", "state", "self-employed", "none"]
TRADES = ["clerk", "crafts", "sales", "care", "teaching", "engineering", "management", "transport"]


def person(drawn: random.Random) -> list[str]:
    """One row."""
    age, schooling = drawn.randint(17, 80), min(int(drawn.expovariate(0.7)), 4)
    work, trade = drawn.choices(WORK, [7, 2, 2, 1])[0], drawn.randrange(len(TRADES))
    hours = 0 if work == "none" else max(5, round(drawn.gauss(40, 9)))
    gain = round(drawn.lognormvariate(7, 1.2)) if drawn.random() < 0.08 else 0
    area = drawn.randrange(60)
    prime = 1 - abs(age - 48) / 35
    score = 1.6 * prime + 0.8 * schooling + 0.05 * (hours - 40) * (1 + (trade in (5, 6))) + (gain > 3000) * 2.5
    score += 0.9 * (trade in (4, 5, 6)) * (schooling >= 2) - 1.2 * (work == "none") + 0.6 * (area % 7 == 0)
    income = "more" if score + drawn.gauss(0, 0.7) > 2.6 else "less"
    cells = [age, work, SCHOOLING[schooling], hours, gain, TRADES[trade], 1000 + area]
    unknown = [0.0, 0.06, 0.0, 0.03, 0.0, 0.06, 0.0]
    return [*("?" if drawn.random() < share else str(cell) for cell, share in zip(cells, unknown, strict=True)), income]


def write(folder: Path, rows: int = 4000, seed: int = 0) -> None:
    """Write both files; a quarter of the rows is the test file."""
    drawn = random.Random(seed)
    people = [person(drawn) for _ in range(rows)]
    for name, part in {"census-test.csv": people[: rows // 4], "census.csv": people[rows // 4 :]}.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *part])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=".", type=Path)
    parser.add_argument("--rows", default=4000, type=int)
    parser.add_argument("--seed", default=0, type=int)
    asked = parser.parse_args()
    write(asked.folder, asked.rows, asked.seed)
