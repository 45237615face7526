"""The claims on tasks beside classification: students of several teachers, on values and on several labels a sample.

Run ``python benchmarks/task_claims.py [--only TEXT] [--seeds N]``. Every line is the bundled mesh of a task with the
controls of ``kdmesh run --controls``: the same student alone (labels only, as many epochs), and taught by the one of
its teachers that is best on validation. `data.seed` moves with the seed, so that the split varies too. Thresholds were
written down before the first run: the student is better than alone, and than the best teacher's, where the 95% interval
of the difference, paired by seed, lies on the better side of 0. A miss is printed as MISS, and the exit code stays 0.

The last claim is about the rule `inverse_variance`: teachers that have learned from 319, 80 and 20 patients. Its
contenders are runs of ``kdmesh run --seeds N`` on one split, and its table is that of ``kdmesh compare``.

Values: scikit-learn's diabetes, 442 patients (measured). Several labels: scikit-learn's digits with five labels that
are made from their classes, so no new fact about the images (made).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: matrices this small are fastest on one thread

import kdmesh
from kdmesh.cli import main as command
from kdmesh.report.paired import on_test
from kdmesh.statistics import interval, paired, verdicts
from kdmesh.tasks import primary

AGAINST = {"alone": "alone", "best_teacher": "student of the best teacher only"}


@dataclass(frozen=True)
class Claim:
    """A sentence and the mesh that tries it."""

    text: str
    mesh: str
    overrides: tuple[str, ...] = field(default=())


# Written down on 2026-11-29, before any of these experiments had been run.
FEW = ("data.train=150", "data.transfer=900", "connect.0.ensemble.stream=transfer", "connect.0.ensemble.labels=0.5")
CLAIMS = (
    Claim("values: the student of three teachers' median has the higher R2 on diabetes", "regression"),
    Claim("several labels: the student of three teachers has the higher mean average precision", "multi-label"),
    Claim("150 samples with labels, 900 without: the same, taught on those without", "multi-label", FEW),
)

WEIGHTED = "unequal teachers of values: weights by their errors on validation teach better than any other way"
RULE = "connect.0.ensemble.consensus"
CONTENDERS = (  # by name: a file of benchmarks/claims, and what is changed in it
    ("inverse-variance", "unequal_teachers.yaml", ()),
    ("mean", "unequal_teachers.yaml", (f"{RULE}=mean",)),
    ("median", "unequal_teachers.yaml", (f"{RULE}=median",)),
    ("best-teacher", "diabetes_best_teacher.yaml", ()),
    ("labels-alone", "diabetes_alone.yaml", ()),
)


def figures(claim: Claim, seed: int) -> tuple[str, dict[str, float]]:
    """The task's primary metric on test, of every agent, the consensus and the student's controls."""
    mesh = kdmesh.Mesh.read(claim.mesh, *claim.overrides, f"seed={seed}", f"data.seed={seed}")
    with tempfile.TemporaryDirectory() as folder:
        summary = mesh.run(backend="inline", out=folder, controls=True).summary
    by = primary(summary["task"])
    found = {name: on_test(node, by) for name, node in {**summary["agents"], **summary["consensus"]}.items()}
    for which, name in AGAINST.items():
        found[name] = on_test(summary["controls"]["student"][which], by)
    return summary["task"], {name: value for name, value in found.items() if value is not None}


def tell(claim: Claim, seeds: int) -> None:
    """Run a claim, and print its figures and verdicts."""
    begun = perf_counter()
    runs = [figures(claim, seed) for seed in range(seeds)]
    task = runs[0][0]
    by = primary(task)
    values = {name: [run[1][name] for run in runs] for name in runs[0][1]}
    print(f"\n{claim.text}\n  test {by.title}, seeds 0 .. {seeds - 1}, {perf_counter() - begun:.0f} s")
    for name, each in values.items():
        mean, half = interval(each)
        print(f"  {name:>34}: {mean:.4f} ± {half or 0:.4f}")
    for name in AGAINST.values():
        pair = paired(values["student"], values[name], by)
        said = verdicts([pair], by)[0]["verdict"]
        print(
            f"  {'pass' if said == 'better' else 'MISS'}  student minus {name}: {pair['mean']:+.4f} ± "
            f"{pair['half_width'] or 0:.4f}, better in {pair['wins']}/{pair['n']}: {said or 'no verdict'}",
            flush=True,
        )


def unequal(seeds: int) -> None:
    """Run every contender of the claim on unequal teachers, and print what `kdmesh compare` says of them."""
    begun, runs = perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for name, file, changes in CONTENDERS:
            out, printed = Path(folder) / name, io.StringIO()
            settings = [word for change in (f"name={name}", *changes) for word in ("--set", change)]
            options = ["--backend", "inline", "--seeds", str(seeds), "--no-report", "--quiet", "--out", str(out)]
            with redirect_stdout(printed), redirect_stderr(printed):
                code = command(["run", str(Path(__file__).parent / "claims" / file), *settings, *options])
            if code:
                sys.exit(printed.getvalue())
            runs += map(str, out.glob("*/*"))
        print(f"\n{WEIGHTED}\n  seeds 0 .. {seeds - 1}, {perf_counter() - begun:.0f} s\n", flush=True)
        command(["compare", *runs, "--agent", "student"])


def main() -> int:
    """Run the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only claims whose sentence contains this")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    args = parser.parse_args()
    print("Claims on tasks. Test figures, mean and 95% t interval over seeds; differences paired by seed.", flush=True)
    for claim in CLAIMS:
        if args.only in claim.text:
            tell(claim, args.seeds)
    if args.only in WEIGHTED:
        unequal(args.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
