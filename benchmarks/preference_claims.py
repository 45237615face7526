"""Whom a model asks which of two answers is better: labels, some of which are wrong, or a teacher.

Run ``python benchmarks/preference_claims.py [--seeds N]`` with the package `kdmesh-preference` installed: ``kdmesh
compare`` of the meshes in ``benchmarks/claims/preference``. Sums of numbers below 20, a fifth of them for testing;
beside each right answer stands a wrong one, and in a quarter of the training pairs the two are the wrong way round. A
base of 22k parameters learns the chosen answers for 180 updates, and its student goes on from there for 180 more:
*supervised*, on the chosen answers; *dpo*, by DPO with the base as its reference; *distilled*, by the margins of a
teacher of 84k parameters that has learned the same chosen answers for 360 updates, and without being told which are
chosen. Beta is 0.5 in both. The figure is the share of test pairs, none of them turned, whose right answer is the
likelier one; the second table has the share of test prompts whose greedy answer is right.

What was expected: dpo above supervised, and distilled above dpo, in pairs; nothing of greedy answers. That was written
down after one seed (100) of dpo had been run, to see how long it takes; no setting was changed after it.
"""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path

from contenders import compare
from texts import Figures, Report

from kdmesh.statistics import interval

NAMES = ("supervised", "dpo", "distilled")
AGENTS = ("base", "student")


def tables(folder: Path, report: Report) -> None:
    """Of each figure a line for each agent of each contender, and one for the difference of every two students."""
    for figure in ("pair_accuracy", "exact_match"):
        report(f"\n{figure} on test: mean, half of a 95% interval, each seed")
        found: Figures = {}
        for name in NAMES:
            summaries = [json.loads(file.read_text()) for file in sorted(folder.glob(f"trials/{name}/*/summary.json"))]
            for agent in (*AGENTS, *(["teacher"] if name == "distilled" else [])):
                found[f"{name}: {agent}"] = [one["agents"][agent]["metrics"]["test"][figure] for one in summaries]
        lines = {**found}
        for one, other in combinations(NAMES, 2):
            pairs = zip(found[f"{other}: student"], found[f"{one}: student"], strict=True)
            lines[f"{other} minus {one}"] = [a - b for a, b in pairs]
        for name, values in lines.items():
            mean, half = interval(values)
            report(f"  {name:28} {mean:+.4f} ± {half or 0:.4f}  ({', '.join(f'{value:.4f}' for value in values)})")


if __name__ == "__main__":
    sys.exit(compare(__doc__, "preference", NAMES, tables))
