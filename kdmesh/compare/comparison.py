"""A comparison from its design to its table: checked, made trial by trial, resumed, written.

In its folder stand ``compare.json`` (what was asked), ``trials/`` (an ordinary run's folder each), and at the end
``comparison.json``, ``comparison.csv`` and, where pyarrow is installed, ``comparison.parquet``.
"""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.compare import making
from kdmesh.compare.analysis import analyse
from kdmesh.compare.child import Order
from kdmesh.compare.contender import Contender, counted, taught_by
from kdmesh.compare.design import DESIGN, Design, Entry, Trial, read, refuse_margin
from kdmesh.compare.making import Maker, Told, cores
from kdmesh.contracts.run_files import COMPARISON
from kdmesh.engine import sums
from kdmesh.engine.check import examine
from kdmesh.engine.folder import made_of
from kdmesh.engine.lock import held
from kdmesh.engine.looked_up import settled
from kdmesh.engine.progress import sizes
from kdmesh.engine.spared import stored_at
from kdmesh.errors import MeshError, RunFailed
from kdmesh.files import to_json, write, write_json
from kdmesh.graph.budgets import refuse_trials
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.hosts.source import digest
from kdmesh.plugins import registry
from kdmesh.report import answers
from kdmesh.spec.code import named
from kdmesh.spec.read import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec

TABLE, SHEET, COLUMNS = COMPARISON, "comparison.csv", "comparison.parquet"
HEADS = ("contender", "agent", "data_seed", "seed", "metric", "value")


@dataclass
class Asked:
    """What the command line asked for, beside contenders."""

    seeds: int = 10
    splits: int = 1
    controls: bool = True
    equal: float | None = None
    against: str = "first"
    agents: dict[str, str] = field(default_factory=dict)
    backend: str = "inline"
    strict_signals: bool = False
    workers: int | None = None
    store: str | None = None


def design(contenders: Sequence[Contender], asked: Asked) -> tuple[Design, dict[str, int]]:
    """Check every contender, and that they can be paired; returns the design, and each one's steps of a trial.

    MeshError for whatever would keep a trial from running, or its figures from being compared.
    """
    plans: dict[str, Plan] = {}
    known: dict[str, Checked] = {}
    steps: dict[str, int] = {}
    _refuse_other_code(contenders)
    for one in contenders:
        plans[one.name] = plan = make_plan(one.spec, registry())
        refuse_unrun(plan, registry())
        refuse_trials(plan)
        plans[one.name] = plan = replace(plan, spec=settled(plan.spec, asked.store))
        known[one.name] = checked = examine(plan, {}, None)
        steps[one.name] = sum(sizes(plan, checked, [one.spec.seed], asked.controls).values())
    first = contenders[0]
    _refuse_unlike(plans, known, first.name)
    if asked.splits > 1:
        for one in contenders:
            for name, agent in one.spec.agents.items():
                if agent.weights is not None:
                    raise MeshError(
                        f"{name} of {one.name} has weights that were trained elsewhere: on another split they have "
                        "learned samples that are tested here",
                        where="--splits",
                        instead="--splits 1, or an agent that is trained in the mesh",
                    )
    refuse_margin(asked.equal, plans[first.name].primary)
    taught = {name: taught_by(plan) for name, plan in plans.items()}
    agents = counted(taught, {name: list(plan.spec.agents) for name, plan in plans.items()}, asked.agents)
    entries = {
        one.name: Entry(
            mesh=plans[one.name].resolved().model_dump(mode="json", by_alias=True, exclude_none=True),
            agent=agents[one.name],
            differs=list(one.differs),
            text=one.text,
            beside=list(one.beside),
            made_of=json.loads(to_json(made_of(plans[one.name], known[one.name]))),
        )
        for one in contenders
    }
    _refuse_same(entries)
    _refuse_other_seeds(contenders)
    data_seed = _data_seed(plans[first.name])
    made = Design.model_validate(
        {
            "contenders": {name: entry.model_dump() for name, entry in entries.items()},
            "seeds": [first.spec.seed + at for at in range(asked.seeds)],
            "data_seeds": [data_seed + at for at in range(asked.splits)],
            "shared": _shared(known[first.name]) if asked.splits > 1 else 0.0,
            "controls": asked.controls,
            "equal": asked.equal,
            "against": asked.against,
            "backend": asked.backend,
            "strict_signals": asked.strict_signals,
            "workers": asked.workers,
            "store": stored_at(asked.store),
        }
    )
    return made, steps


def begin(out: Path, made: Design) -> Path:
    """Make a comparison's folder: ``out/compare-<first>-<second>/<time>``."""
    name = f"compare-{'-'.join(list(made.contenders)[:2])}"
    return making.begin(out, name, "comparison", DESIGN, made.model_dump(mode="json"))


class Comparison:
    """Makes what lacks of a comparison in a folder, and its table."""

    def __init__(
        self,
        root: Path,
        workers: int | None = None,
        ray_address: str | None = None,
        checkpoint_seconds: float = 60.0,
        progress_timeout: float = 600.0,
        report: bool = True,
    ) -> None:
        """MeshError where the folder is of no comparison.

        ``workers``: trials side by side; None: one per core. ``report``: trials write their pages.
        """
        made = read(root)
        if made is None:
            raise MeshError(f"is no comparison's folder: it has no {DESIGN}", file=str(root))
        making.refuse_edited(root, DESIGN, "comparison")
        self.root, self.design = root, made
        self.workers = workers or made.workers or max(1, cores() if made.backend == "inline" else 1)
        self.ray_address, self.report = ray_address, report
        self.checkpoint_seconds, self.progress_timeout = checkpoint_seconds, progress_timeout
        self.failed: dict[Trial, str] = {}

    def run(self, shown: Callable[[Told], None], steps: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Make every trial that is not whole, then the table, which it returns.

        ``steps``: of a trial, by contender, where they are known. RunFailed, with the table written, where trials
        failed; KeyboardInterrupt, with how to go on, where it was interrupted.
        """
        with held(self.root):
            trials = list(self.design.trials())
            size = {trial: (steps or {}).get(trial.contender, 1) for trial in trials}
            told = Told(len(trials), total=sum(size.values()))
            self.maker = Maker(self.root, self.workers, told, shown, size.__getitem__, self.failed)
            with closing(self.maker):
                self.maker.make(trials, self.order, self._said)
                try:
                    table = self.table()
                    self._keep(table)
                except OSError as error:
                    raise making.unwritten(self.root, error, "comparison") from error
        if self.failed:
            first = next(iter(self.failed))
            raise RunFailed(
                f"{len(self.failed)} of {len(trials)} trials failed; {first}: {self.failed[first]}",
                file=str(self.root),
                instead=f"the table is of those that are whole; to try again: kdmesh resume {self.root}",
            )
        return table

    def order(self, trial: Trial) -> Order:
        """What makes a trial."""
        entry = self.design.contenders[trial.contender]
        return Order(
            mesh=self._spec(trial).model_dump(mode="json", by_alias=True, exclude_none=True),
            at=str(self.root / trial.folder),
            text=entry.text,
            beside=list(entry.beside),
            backend=self.design.backend,
            ray_address=self.ray_address,
            controls=self.design.controls,
            strict_signals=self.design.strict_signals,
            checkpoint_seconds=self.checkpoint_seconds,
            progress_timeout=self.progress_timeout,
            advice=f"kdmesh resume {self.root}",
            report=self.report,
            store=self.design.store,
            made_of=entry.made_of,
        )

    def table(self) -> dict[str, Any]:
        """The table of the trials that are whole."""
        found: dict[Trial, dict[str, Any]] = {}
        for trial in self.design.trials():
            summary = self.maker.summary(trial)
            if summary is not None:
                found[trial] = summary
        return analyse(self.design, found, self.failed, self._scores)

    def _scores(self, trial: Trial, agent: str) -> np.ndarray[Any, Any] | None:
        """What each test sample scored in a trial; None where that was not filed."""
        filed = answers.read(self.root / trial.folder)
        return None if filed is None else filed.score(agent)

    def _spec(self, trial: Trial) -> MeshSpec:
        spec = parse(self.design.contenders[trial.contender].mesh, file=str(self.root / DESIGN))
        changes: dict[str, Any] = {"seed": trial.seed}
        if spec.data is not None:
            changes["data"] = spec.data.model_copy(update={"seed": trial.data_seed})
        return spec.model_copy(update=changes)

    def _said(self, trial: Trial, summary: dict[str, Any]) -> str:
        """The line about a trial that is whole."""
        figure = analyse(self.design, {trial: summary})
        value = figure["trials"][0]["value"]
        return f"{trial}: {figure['metric']} {value:.4f}" if value is not None else f"{trial}: not measured"

    def _keep(self, table: dict[str, Any]) -> None:
        write_json(self.root / TABLE, table)
        rows = list(sheet(table))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HEADS, *rows])
        write(self.root / SHEET, text.getvalue())
        names = [DESIGN, TABLE, SHEET]
        if find_spec("pyarrow") is not None:
            names.append(COLUMNS)
            _parquet(self.root / COLUMNS, rows)
        else:
            self.maker.tell(f"note: no {COLUMNS}, for pyarrow is not installed: pip install 'kdmesh[parquet]'")
        sums.keep(self.root, names, anew=True)


def sheet(table: dict[str, Any]) -> list[tuple[Any, ...]]:
    """A row for every trial: see `HEADS`."""
    agents = {row["contender"]: row["agent"] for row in table["contenders"]}
    return [
        (one["contender"], agents[one["contender"]], one["data_seed"], one["seed"], table["metric"], one["value"])
        for one in table["trials"]
    ]


def _parquet(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from kdmesh.files import aside

    columns = {head: [row[at] for row in rows] for at, head in enumerate(HEADS)}
    with aside(path) as draft:
        pq.write_table(pa.table(columns), draft)


def _shared(checked: Checked) -> float:
    """Test samples for each one that can be learned, of one split."""
    test = len(checked.streams["test"].rows) if "test" in checked.streams else 0
    return test / max(len(checked.table) - test, 1)


def _refuse_other_seeds(contenders: Sequence[Contender]) -> None:
    """Refuse a seed that no trial would have: all have those that are counted from the first contender's."""
    first = contenders[0]
    for one in contenders[1:]:
        if one.spec.seed != first.spec.seed:
            raise MeshError(
                f"{one.name} has seed {one.spec.seed}, {first.name} has {first.spec.seed}: trials are paired by seed",
                where=f"{one.name}: seed",
                instead=f"--set seed={first.spec.seed}, for all; --seeds counts from there",
            )


def _refuse_other_code(contenders: Sequence[Contender]) -> None:
    """Refuse two files of one module's name: they are checked in one process, which imports one of them."""
    found: dict[str, Path] = {}
    for one in contenders:
        for where, ref in named(one.spec).items():
            module = ref.partition(":")[0].partition(".")[0]
            for path in (Path(folder, module + end).resolve() for folder in one.beside for end in ("", ".py")):
                if path.exists() and found.setdefault(module, path) != path:
                    raise MeshError(
                        f"{module} is {path} here, and {found[module]} in another mesh",
                        where=f"{one.name}: {where}",
                        instead="modules of different names, or one for both",
                    )
                if path.exists():
                    break


def _refuse_unlike(plans: Mapping[str, Plan], known: Mapping[str, Checked], first: str) -> None:
    """Refuse contenders whose tests are not of the same samples, or not judged by the same metric."""
    mine = known[first]
    for name, checked in known.items():
        if plans[name].task.name != plans[first].task.name:
            raise MeshError(
                f"{first} is of task {plans[first].task.name}, {name} of {plans[name].task.name}",
                where=f"{name}: task",
                instead="meshes of one task",
            )
        if plans[name].primary != plans[first].primary:
            raise MeshError(
                f"{first} is judged by {plans[first].primary}, {name} by {plans[name].primary}",
                where=f"{name}: primary",
                instead=f"primary: {plans[first].primary}",
            )
        if name == first:
            continue
        own, other = _data_seed(plans[name]), _data_seed(plans[first])
        if own != other:
            raise MeshError(
                f"{name} has data seed {own}, {first} has {other}: trials that are paired are of one split",
                where=f"{name}: data.seed",
                instead=f"seed: {other}; --splits compares on several",
            )
        same = checked.table is mine.table or digest(checked.table) == digest(mine.table)
        if not same or not alike(checked, mine, "test"):
            raise MeshError(
                f"{first} and {name} are tested on different samples: their differences would be of the data",
                where=f"{name}: data",
                instead=f"the data section of {first}: the same data set, data seed and size of the test part",
            )


def _data_seed(plan: Plan) -> int:
    return plan.spec.data.seed if plan.spec.data is not None else 0


def _refuse_same(entries: Mapping[str, Entry]) -> None:
    """Refuse contenders that differ in nothing but what every trial is given: seeds."""
    seen: dict[tuple[str, str], str] = {}
    for name, entry in entries.items():
        given: dict[str, Any] = {"name": "", "seed": 0, "data": {**entry.mesh.get("data", {}), "seed": 0}}
        other = seen.setdefault((entry.agent, to_json({**entry.mesh, **given})), name)
        if other != name:
            raise MeshError(
                f"{other} and {name} are one mesh: seeds and splits are those of the comparison",
                where="kdmesh compare",
                instead="a change of something else; or kdmesh run --seeds N, for one mesh over seeds",
            )


def alike(one: Checked, other: Checked, stream: str) -> bool:
    """Whether a stream has the same rows in both."""
    a, b = one.streams.get(stream), other.streams.get(stream)
    if a is None or b is None:
        return a is b
    return len(a.rows) == len(b.rows) and bool((a.rows == b.rows).all())
