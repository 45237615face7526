"""A sweep from its design to its table: searched by validation, chosen, then tested once; resumed, written.

In its folder stand ``sweep.json`` (what was asked), ``trials/`` (an ordinary run's folder each), ``chosen.json`` from
the moment on that the search is over, and at the end ``points.csv`` and ``sweep_result.json``. No trial of the search
is measured on test. Once ``chosen.json`` stands, nothing is searched any more: what is tested was chosen before.
"""

from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING, Any

from kdmesh.compare.child import Order
from kdmesh.compare.making import Maker, Told, cores, refuse_edited
from kdmesh.contracts.run_files import CHOSEN, POINT
from kdmesh.engine import controls, sums
from kdmesh.engine.inputs import code
from kdmesh.engine.lock import held
from kdmesh.errors import MeshError, RunFailed
from kdmesh.files import read_json, write, write_json
from kdmesh.report import answers
from kdmesh.sweep.design import ALONE, BEST, DESIGN, MESH, Trial, at, read
from kdmesh.sweep.meshes import Meshes
from kdmesh.sweep.result import SHEET, TABLE, Seen, points, result, sheet
from kdmesh.sweep.search import Search, sampler_of
from kdmesh.sweep.start import budgets
from kdmesh.tasks import metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from kdmesh.spec import MeshSpec


class Sweeping:
    """Makes what lacks of a sweep in a folder, and its table."""

    def __init__(
        self,
        root: Path,
        workers: int | None = None,
        ray_address: str | None = None,
        checkpoint_seconds: float = 60.0,
        progress_timeout: float = 600.0,
        code: bool = True,
        report: bool = True,
    ) -> None:
        """MeshError where the folder is of no sweep.

        ``workers``: trials side by side; None: one per core. ``code``: the mesh may name code. ``report``:
        trials that are tested write their pages; of one of the search nobody reads a page.
        """
        made = read(root)
        if made is None:
            raise MeshError(f"is no sweep's folder: it has no {DESIGN}", file=str(root))
        refuse_edited(root, DESIGN, "sweep")
        self.root, self.sweep = root, made
        self.workers = workers or max(1, cores() if made.backend == "inline" else 1)
        self.ray_address, self.report = ray_address, report
        self.checkpoint_seconds, self.progress_timeout = checkpoint_seconds, progress_timeout
        self.meshes = Meshes(made.given, made.anchor, str(root / DESIGN), code, made.store)
        self.first = {axis.path: axis.ends[0] for axis in made.axes}
        plan = self.meshes.plan(self.first)
        self.task, self.metric = plan.task.name, metric(plan.primary)
        self._known: dict[Trial, dict[str, Any]] = {}
        self._beside: set[str] = set()  # folders of runs that are made for their teachers alone

    def run(self, shown: Callable[[Told], None], steps: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Search, choose, test, and return the table, which is written.

        ``steps``: of a trial, by arm, where they are known. RunFailed, with the table written, where nothing could be
        chosen, or trials of what was chosen failed; KeyboardInterrupt, with how to go on, where it was interrupted.
        """
        with held(self.root):  # a sampler may write into the folder as it is made
            self.searches = {arm: self._search(arm) for arm, paths in self.sweep.arms.items() if paths}
            table, tests = self._run(shown, steps or {})
        failed = {trial: self.maker.failed[trial] for trial in tests if trial in self.maker.failed}
        if failed:
            first = next(iter(failed))
            raise RunFailed(
                f"{len(failed)} of {len(tests)} trials of what was chosen failed; {first}: {failed[first]}",
                file=str(self.root),
                instead=f"the table is of those that are whole; to try again: kdmesh resume {self.root}",
            )
        return table

    def _run(self, shown: Callable[[Told], None], steps: Mapping[str, int]) -> tuple[dict[str, Any], list[Trial]]:
        """Everything in order; returns the table and the trials that were tested."""
        sizes = {arm: steps.get(arm, 1) for arm in self.sweep.arms}
        self.maker = Maker(
            self.root, self.workers, self._expected(sizes), shown, lambda trial: max(1, sizes[trial.arm] // trial.part)
        )
        with closing(self.maker):
            if (self.root / CHOSEN).is_file():
                refuse_edited(self.root, CHOSEN, "sweep")  # nothing is tested but what validation chose
            elif CHOSEN in sums.told(self.root):
                raise MeshError(
                    "was deleted: what is chosen is tested once, and is not chosen again",
                    file=str(self.root / CHOSEN),
                    instead="put it back as it was, or begin a new sweep",
                )
            before = read_json(self.root / CHOSEN)
            self._searched(again=before is None)
            chosen = before["chosen"] if before is not None else self._choose()
            tests = self._tests(chosen)
            self._made(tests)
            rows = self._write_points(chosen)
            table = result(self._seen(), self.task, chosen, tests, rows, self.maker.failed)
            write_json(self.root / TABLE, table)
            sums.keep(self.root, [DESIGN, CHOSEN, SHEET, TABLE], anew=True)
            return table, tests

    # -- searching -------------------------------------------------------------------------------------------------

    def _search(self, arm: str) -> Search:
        sweep = self.sweep
        name, config = sweep.sampler
        mine = [axis for axis in sweep.axes if axis.path in sweep.arms[arm]]
        folder = self.root / "samplers" / arm  # made by a sampler that keeps something there
        about = {"axes": mine, "count": sweep.points, "seed": sweep.seed, "higher": self.metric.higher}
        sampler = sampler_of(name, config, **about, folder=folder)
        return Search(arm, sweep, budgets(sweep, self.meshes), sampler, self.metric)

    def _searched(self, again: bool) -> None:
        """Search with every arm; ``again``: trials that lack are made, else they count as failed."""
        while True:
            wanted = {arm: trials for arm, search in self.searches.items() if (trials := search.wanted())}
            if not wanted:
                return
            (self._made if again else self.maker.count)([trial for trials in wanted.values() for trial in trials])
            for arm in wanted:
                self.searches[arm].take(self.figure)

    def _choose(self) -> dict[str, str]:
        """What the search chose, by arm, kept before anything of it is tested."""
        chosen = {arm: search.chosen.at for arm, search in self.searches.items() if search.chosen is not None}
        if MESH not in chosen:
            self._write_points({})
            first = next(iter(self.maker.failed.items()), ("", "none has a figure on validation"))
            raise RunFailed(
                f"every point failed; {': '.join(map(str, first))}",
                file=str(self.root),
                instead="other values: a smaller learning rate, say",
            )
        chosen |= {arm: at({}) for arm, paths in self.sweep.arms.items() if not paths}
        write_json(self.root / CHOSEN, {"chosen": chosen})
        sums.keep(self.root, [CHOSEN])
        return chosen

    def _tests(self, chosen: Mapping[str, str]) -> list[Trial]:
        """What was chosen, each with all fresh seeds."""
        return [
            Trial(arm=arm, at=point, seed=seed, tested=True)
            for seed in self.sweep.fresh()
            for arm, point in chosen.items()
        ]

    # -- making ----------------------------------------------------------------------------------------------------

    def _made(self, trials: Sequence[Trial]) -> None:
        """Make trials; where a teacher's run is to be there before, that first."""
        later = [trial for trial in trials if trial.arm == BEST]
        now = [trial for trial in trials if trial.arm != BEST]
        for trial in trials:
            self._name(trial)
        known = {trial.folder for trial in now}
        runs = [run for trial in later if (run := self._whole_run(trial)).folder not in known]
        self._expect(runs)
        self.maker.make([*now, *dict.fromkeys(runs)], self._order, self._said)
        ready = [trial for trial in later if self.maker.summary(self._whole_run(trial)) is not None]
        for trial in later:
            if trial not in ready:
                self.maker.failed[trial] = f"{self._whole_run(trial)}, which trains its teachers, failed"
        self.maker.make(ready, self._order, self._said)

    def _name(self, trial: Trial) -> None:
        """Say beside a point's trials which point it is: their folder has a short name of it."""
        path = (self.root / trial.folder).parent / POINT
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, trial.point)

    def _expect(self, runs: Sequence[Trial]) -> None:
        """Count runs that are made for their teachers alone: no arm's search has them."""
        tried = self.searches[MESH].tried.values() if MESH in self.searches else ()
        known = self._beside | {trial.folder for one in tried for trial in one.trials}
        for run in dict.fromkeys(runs):
            if run.folder not in known:
                self._beside.add(run.folder)
                self.maker.told.trials += 1
                self.maker.told.total += self.maker.size(run)

    def _whole_run(self, trial: Trial) -> Trial:
        """The run of the mesh that trains the teachers of a control."""
        return trial.model_copy(update={"arm": MESH, "tested": False})

    def _order(self, trial: Trial) -> Order:
        """What makes a trial."""
        plan = self.meshes.plan({**self.first, **trial.point}, trial.seed, trial.part)
        spec = plan.spec
        if trial.arm == ALONE:
            spec = self.meshes.alone(plan, self.sweep.agent)
        elif trial.arm == BEST:
            run = self._whole_run(trial)
            best = (self.maker.summary(run) or {})["agents"][self.sweep.agent]["best_teacher"]
            saved = (self.root / run.folder).resolve() / "agents" / best
            made = controls.from_best(plan, self.sweep.agent, best, saved)
            assert made is not None  # there are several teachers
            spec = made
        return Order(
            mesh=spec.model_dump(mode="json", by_alias=True, exclude_none=True),
            at=str(self.root / trial.folder),
            text=self.sweep.text if trial.arm == MESH else None,
            beside=list(self.sweep.beside),
            backend=self.sweep.backend if trial.arm == MESH else "inline",
            ray_address=self.ray_address if trial.arm == MESH else None,
            controls=False,
            strict_signals=self.sweep.strict_signals,
            checkpoint_seconds=self.checkpoint_seconds,
            progress_timeout=self.progress_timeout,
            advice=f"kdmesh resume {self.root}",
            tested=trial.tested,
            report=trial.tested and self.report,
            store=self.sweep.store,
            made_of=self._made_of(spec),
        )

    def _made_of(self, spec: MeshSpec) -> dict[str, Any]:
        """The data and code that a trial must have: those that the sweep began with."""
        found = {part: of for part, of in self.sweep.made_of.items() if part != "code"}
        known = self.sweep.made_of.get("code")
        if known and (named := code(spec)).keys() <= known.keys():  # of a long list of values only the ends are known
            found["code"] = {name: known[name] for name in named}
        return found

    def _said(self, trial: Trial, summary: dict[str, Any]) -> str:
        value = self.figure(trial)
        figure = "no figure" if value is None else f"{value:.4f}"
        return f"{trial}: {self.metric.title} on validation {figure}"

    # -- figures ---------------------------------------------------------------------------------------------------

    def of(self, trial: Trial) -> dict[str, Any] | None:
        """What the summary of a trial says of the agent; None of one that is not whole."""
        if trial not in self._known:
            summary = self.maker.summary(trial)
            if summary is None:
                return None
            self._known[trial] = summary["agents"][self.sweep.agent]
        return self._known[trial]

    def figure(self, trial: Trial, split: str = "validation") -> float | None:
        """The agent's figure in a trial; None where it has none, or none that is a number."""
        value = self.metric.of(((self.of(trial) or {}).get("metrics") or {}).get(split))
        return value if value is not None and math.isfinite(value) else None

    def _expected(self, sizes: Mapping[str, int]) -> Told:
        """How many trials there will be, and their steps."""
        sweep, told = self.sweep, Told(0)
        for arm in sweep.arms:
            rungs = self.searches[arm].rungs if arm in self.searches else []
            for trials, part in [*((count * sweep.search_seeds, part) for count, part in rungs), (sweep.seeds, 1)]:
                told.trials += trials
                told.total += trials * max(1, sizes[arm] // part)
        return told

    def _seen(self) -> Seen:
        def updates(trial: Trial) -> int | None:
            return (self.of(trial) or {}).get("updates")

        def scores(trial: Trial) -> np.ndarray[Any, Any] | None:
            filed = answers.read(self.root / trial.folder)
            return None if filed is None else filed.score(self.sweep.agent)

        return Seen(self.sweep, self.searches, self.metric, self.figure, updates, scores)

    def _write_points(self, chosen: Mapping[str, str]) -> list[dict[str, Any]]:
        rows = points(self._seen(), chosen)
        write(self.root / SHEET, sheet(self._seen(), rows))
        return rows
