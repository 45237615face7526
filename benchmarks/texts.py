"""What the claims on real text share: meshes repeated over seeds, thresholds, and the page they are written to.

The meshes are `examples/text/*.yaml`; what is measured is test data, which never select anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: figures are of one thread

import torch
import transformers

from kdmesh import Mesh
from kdmesh.spec.read import read_mesh
from kdmesh.statistics import interval, paired

Figures = dict[str, list[float]]
Fields = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "text"
PAGE = ROOT / "docs" / "text-claims.md"


@dataclass(frozen=True)
class Threshold:
    """A bound on the mean of figure ``a``, or of ``a - b`` paired by seed: ``above`` or ``below``.

    Of a difference the whole 95% interval must lie on that side of the bound, of a figure alone its mean.
    """

    a: str
    b: str | None = None
    above: float | None = None
    below: float | None = None

    def line(self, figures: Figures, digits: int) -> str:
        """The measured value beside the bound, and whether it is met."""
        values = figures[self.a]
        found = paired(values, figures[self.b] if self.b else [0.0] * len(values))
        mean, half = found["mean"], found["half_width"] or 0.0
        slack = half if self.b else 0.0
        met = (self.above is None or mean - slack > self.above) and (self.below is None or mean + slack < self.below)
        side = f"above {self.above:g}" if self.above is not None else f"below {self.below:g}"
        wins = f", larger in {found['wins']}/{found['n']}, equal in {found['ties']}" if self.b else ""
        what = f"{self.a} minus {self.b}" if self.b else self.a
        bound = f"interval {side}" if self.b else side
        spread = f" ± {half:.{digits}f}" if len(values) > 1 else ""
        shown = round(mean, digits) + 0.0  # no -0.0
        return f"  {'pass' if met else 'MISS'}  {what}: {shown:+.{digits}f}{spread}{wins}  [{bound}]"


def fields_of(name: str, *overrides: str) -> Fields:
    """An example as plain data, with ``path=value`` laid over it."""
    return read_mesh(EXAMPLES / f"{name}.yaml", overrides).dump()


def repeated(fields: Fields, seeds: Sequence[int]) -> Fields:
    """The mesh with its students once per seed, named `student-seed`; what is frozen stays one.

    Students of one architecture and seed start from equal weights. All share the teachers' publications and, under an
    `ensemble`, its consensus; and as in any mesh the batches, which depend on the mesh's seed.
    """
    students = [name for name, agent in fields["agents"].items() if agent.get("update") != "frozen"]
    agents = {name: agent for name, agent in fields["agents"].items() if name not in students}
    everyone = {name: [f"{name}-{seed}" for seed in seeds] for name in students}
    shared = [entry for entry in fields["connect"] if "ensemble" in entry]
    connect, flows = [_renamed(entry, everyone) for entry in shared], []
    for seed in seeds:
        names = {name: f"{name}-{seed}" for name in students}
        agents |= {names[name]: {**fields["agents"][name], "seed": seed} for name in students}
        connect += [_renamed(entry, names) for entry in fields["connect"] if entry not in shared]
        flows += [_renamed(entry, names) for entry in fields.get("flows", [])]
    return {**fields, "agents": agents, "connect": connect, "flows": flows}


def _renamed(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def run(fields: Fields, folder: Path, reuse: bool = False) -> tuple[dict[str, Any], Path]:
    """Run a mesh inline; returns its summary and its folder. ``reuse``: the latest run of it that ``folder`` holds."""
    done = sorted((folder / fields["name"]).glob("*/summary.json")) if reuse else []
    root = done[-1].parent if done else Mesh(**fields).run(backend="inline", out=folder).folder
    assert root is not None
    return json.loads((root / "summary.json").read_text(encoding="utf-8")), root


def metric(summary: dict[str, Any], agent: str, name: str, split: str = "test") -> float:
    """One figure of an agent."""
    return summary["agents"][agent]["metrics"][split][name]


class Report:
    """Lines that are printed as they come, and written into the page at the end."""

    def __init__(self, block: str) -> None:
        self.block, self.lines = block, list[str]()
        self.begun, self.cpu = time.perf_counter(), _cpu()
        where = (
            f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
        )
        self(f"{date.today()}, {where}, {torch.get_num_threads()} thread")

    def __call__(self, line: str = "") -> None:
        """Print and keep a line."""
        self.lines.append(line)
        print(line, flush=True)

    def figures(self, figures: Figures, thresholds: Iterable[Threshold], digits: int) -> None:
        """Means with their intervals, every seed's figure, and what the thresholds say."""
        for name, values in figures.items():
            mean, half = interval(values)
            spread = f" ± {half:.{digits}f}" if half is not None else ""
            each = f"  ({', '.join(f'{value:.{digits}f}' for value in values)})" if len(values) > 1 else ""
            self(f"        {name}: {mean:.{digits}f}{spread}{each}")
        for threshold in thresholds:
            self(threshold.line(figures, digits))

    def close(self, write: bool) -> None:
        """Say how long it took; ``write``: put the lines into the page, between the comments that name the block."""
        taken = f"{time.perf_counter() - self.begun:.0f} s, of which {_cpu() - self.cpu:.0f} s CPU"
        self(f"\n{taken}")
        if not write:
            return
        start, end = f"<!-- {self.block} -->", f"<!-- end of {self.block} -->"
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(start)
        _, _, after = rest.partition(end)
        text = "\n".join(self.lines)
        PAGE.write_text(f"{before}{start}\n```\n{text}\n```\n{end}{after}", encoding="utf-8")


def _cpu() -> float:
    """Seconds that this process and those that it began and that have ended computed."""
    return sum(os.times()[:4])


def options(about: str | None, folder: str, seeds: int) -> argparse.Namespace:
    """The command line of a claim; `data`, from the first argument or KDMESH_DATA, holds ``folder`` and becomes it."""
    return settled(parser_of(about, folder, seeds), folder)


def parser_of(about: str | None, folder: str, seeds: int) -> argparse.ArgumentParser:
    """What reads the command line of a claim, to which more may be added."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=os.environ.get("KDMESH_DATA"), help=f"folder that holds {folder}/")
    parser.add_argument("--seeds", type=int, default=seeds, help=f"so many seeds instead of {seeds}")
    parser.add_argument("--out", default="runs", help="folder for the runs")
    parser.add_argument("--reuse", action="store_true", help="what earlier runs left in --out")
    parser.add_argument("--write", action="store_true", help=f"write the figures into {PAGE.relative_to(ROOT)}")
    return parser


def settled(parser: argparse.ArgumentParser, folder: str) -> argparse.Namespace:
    """What the command line says, with its paths made whole."""
    given = parser.parse_args()
    if given.data is None or not (Path(given.data) / folder).is_dir():
        parser.error(f"no folder {folder}/ in {given.data or 'DATA'}: see the top of {Path(sys.argv[0]).name}")
    given.data, given.out = Path(given.data).resolve() / folder, Path(given.out).resolve()
    return given
