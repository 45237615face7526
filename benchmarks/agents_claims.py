"""Debate against the best debater and self-consistency, STaR against supervised learning: sums, models made here.

Run ``python benchmarks/agents_claims.py [--only debate] [--only star] [--seeds N] [--write]``: the meshes in
``benchmarks/claims/agents``, each for every seed, and what follows by pairs of equal seeds with intervals of 95%. The
figure is the share of test prompts whose answer (the last number) is right. Pairs of numbers below 20, a fifth of them
for testing. ``--write`` puts what is printed into docs/text-claims.md.

*debate*: three models of 22k parameters learn 280 sums, asked plainly and after two made-up answers of others, each of
which is right three times in five. Then they answer (a text each), read the other two's answers, and answer again: six
texts, and a vote. Beside it, of the same models: the best by validation alone (greedy), the vote of the three first
texts, and a vote of six texts of the best by validation alone.

*star*: 64 of the 320 sums are explained (``7+15=`` is ``12:22``: the sum of the units, then the answer); of the others
only the answer is known. Two rounds, with the answer in the prompt where the model was wrong. Against: the 64 explained
sums alone (*few*), all answers without explanations (*answers*), and the same two rounds with nothing dropped
(*unfiltered*). All learn for 300 updates.

What was expected before the first run: debate above the best debater, above the vote without debate, and above
self-consistency, and STaR above *few*, above *answers* and above *unfiltered*, by intervals above 0. Of STaR's topology
a run of 8 epochs of other settings was seen before; nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: matrices this small are fastest on one thread

import yaml
from texts import Report, Threshold

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.report.measured_texts import best_agent
from kdmesh.spec.read import parse, read_mesh
from kdmesh.tasks import metric

MESHES = Path(__file__).parent / "claims" / "agents"
BELOW, HELD, RIGHT = 20, 80, 0.6
FIGURE = "numeric_answer"


def write(folder: Path) -> None:
    """The sums, drawn by one fixed seed: plain with made-up answers of others, explained, and answered."""
    draw = random.Random(0)
    pairs = [(a, b) for a in range(BELOW) for b in range(BELOW)]
    draw.shuffle(pairs)
    lines: dict[str, list[dict[str, str]]] = {"": [], "explained": [], "answered": []}
    for a, b in pairs:
        said = [a + b if draw.random() < RIGHT else abs(a + b + draw.choice((-10, -2, -1, 1, 2, 10))) for _ in range(2)]
        about = {"prompt": f"{a}+{b}=", "answer": str(a + b)}
        lines[""].append({**about, "text": str(a + b), "one": str(said[0]), "two": str(said[1])})
        lines["explained"].append({**about, "text": f"{a % 10 + b % 10}:{a + b}"})
        lines["answered"].append({**about, "text": str(a + b)})
    for name, every in lines.items():
        for test, part in ((False, every[HELD:]), (True, every[:HELD])):
            file = f"{name}-test" if name and test else name or ("test" if test else "sums")
            (folder / f"{file}.jsonl").write_text("\n".join(map(json.dumps, part)) + "\n", encoding="utf-8")


def meshes(folder: Path, part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The contenders of a part, as fields."""
    text = (MESHES / f"{part}.yaml").read_text(encoding="utf-8").replace("path: ", f"path: {folder}/")
    (folder / f"{part}.yaml").write_text(text, encoding="utf-8")
    fields = read_mesh(folder / f"{part}.yaml").dump()
    yield part, fields
    if part == "debate":
        return
    base = {key: value for key, value in fields.items() if key not in ("connect", "streams")}
    taught = {"from": "labels", "to": "student", "objective": "ce"}
    (ref,) = fields["connect"]
    yield "unfiltered", {**fields, "connect": [{"star": {**ref["star"], "least": 0}}]}
    yield "few", {**base, "streams": fields["streams"], "flows": [{**taught, "stream": "few"}]}
    data = yaml.safe_load(yaml.safe_dump(fields["data"]).replace("explained", "answered"))
    yield "answers", {**base, "data": data, "flows": [taught]}


def figures(name: str, summary: dict[str, Any]) -> dict[str, float]:
    """What is compared of a run, on test."""
    agents = {key: one["metrics"]["test"][FIGURE] for key, one in summary["agents"].items()}
    if name != "debate":
        student = next(key for key in ("student.r2", "student") if key in agents)
        return {name: agents[student]} | ({"star, round 1": agents["student.r1"]} if name == "star" else {})
    best = best_agent(["a", "b", "c"], summary, metric(FIGURE))
    said = {key: one["test"][FIGURE] for key, one in summary["texts"].items()}
    return {
        "debate": said["debate"],
        "best debater": agents[str(best)],
        "vote": said["debate.vote"],
        "self-consistency": said[f"debate.self.{best}"],
        "student of the debate": agents["student"],
    }


EXPECTED = {
    "debate": [Threshold("debate", against, above=0) for against in ("best debater", "vote", "self-consistency")],
    "star": [Threshold("star", against, above=0) for against in ("few", "answers", "unfiltered")],
}


def main() -> int:
    """Train all, and print figures and pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=EXPECTED, help="one part; by default both")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/text-claims.md")
    given = parser.parse_args()
    for part in given.only or EXPECTED:
        report, found = Report(f"agents-{part}"), dict[str, list[float]]()
        report("Share of 80 test prompts answered right; mean, 95% t interval, each seed; differences paired by seed.")
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            made = dict(meshes(Path(folder), part))
            for seed in range(given.seeds):
                for name, fields in made.items():
                    summary = run_once(Request(parse({**fields, "seed": seed}), "inline"))[0]
                    for key, value in figures(name, summary).items():
                        found.setdefault(key, []).append(value)
                    print(f"seed {seed}, {name}: {process_time():.0f} s CPU in all", file=sys.stderr, flush=True)
        report.figures(found, EXPECTED[part], 3)
        report.close(given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
