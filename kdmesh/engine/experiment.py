"""What was asked for as one run that can be resumed: every seed, its controls, and a table of everything.

A run of one seed is that seed's folder. A run of several has ``seeds/<seed>/``, each an ordinary run's folder. Controls
are ordinary run folders too, under ``controls/`` of their seed. What stands there whole is not made again.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from kdmesh.backends import Session
from kdmesh.contracts.run_files import control_name, seed_name
from kdmesh.engine import controls, results
from kdmesh.engine.folder import Folder
from kdmesh.engine.launch import prepare, run_once, tell_placed, told
from kdmesh.engine.lock import held
from kdmesh.engine.progress import Progress, sizes
from kdmesh.engine.resume import asked, refuse_finished
from kdmesh.engine.retention import at_end
from kdmesh.engine.stopping import AtOnce, stoppable
from kdmesh.errors import HostLost, MeshError, RunFailed, RunPaused, frames_of
from kdmesh.files import remedy
from kdmesh.graph.planner import make_plan
from kdmesh.graph.roles import TAUGHT
from kdmesh.plugins import registry
from kdmesh.report.page.at_end import write_at_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kdmesh.engine.launch import Prepared
    from kdmesh.engine.request import Request
    from kdmesh.engine.run import Run
    from kdmesh.spec import MeshSpec

Summary = dict[str, Any]


@dataclass
class Outcome:
    """What a run gave: by seed, its summary and what ``finish`` read; the table; and what failed, by part."""

    folder: Folder | None = None
    unpaged: str = ""  # why there is no page of it, where one was asked for
    place: str = ""  # where the folder is, or was collected
    summaries: dict[int, Summary] = field(default_factory=dict)
    extras: dict[int, Any] = field(default_factory=dict)
    failed: dict[str, RunFailed] = field(default_factory=dict)
    table: dict[str, Any] = field(default_factory=dict)


class Experiment:
    """Makes a request's seeds and controls in order; one that fails does not keep the others from being made."""

    def __init__(self, request: Request, finish: Callable[[Run], Any] | None = None) -> None:
        """``finish`` reads from a seed's hosts before they close; for it, a seed that is whole is opened again."""
        self.request, self.finish = request, finish
        self.seeds = [request.spec.seed + number for number in range(request.seeds)]
        self.session = Session(request.backend, request.ray_address, request.progress_timeout, request.hosted)
        self.outcome = Outcome()
        self.whole: set[str] = set()  # see `controls.unseeded`

    def run(self, shown: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:
        """Make everything; ``shown`` is told of the outcome before what was started is closed.

        RunFailed, after that, where a part failed, or the folder could not be collected.
        """
        since = monotonic()
        with ExitStack() as ending, self.session:  # what is closed last is in force while the session closes
            if self.request.resume is not None:
                asked(self.request.resume)  # only what is a run's folder
                ending.enter_context(held(self.request.resume))
                if self.finish is None:  # another process may have finished it just before we held it
                    refuse_finished(self.request.resume)
            with stoppable() as self.stopping:
                start = prepare(self.request, self.session)
                self.request, self.outcome.folder = start.request, start.folder
                if start.folder is not None and self.request.resume is None:
                    ending.enter_context(held(start.folder.root))
                try:
                    self._all(start)
                except BaseException as error:
                    self._stopped(error)
                    raise told(error, self.request, start.folder) from error.__cause__
            ending.enter_context(stoppable(finished=True))  # from here to the end of the session
            self._page(monotonic() - since)
            if self.outcome.folder is not None and not self.outcome.failed:
                at_end(self.outcome.folder.root)
            failure = self._close()
            shown(self.outcome)
        if failure is not None:
            raise failure
        return self.outcome

    def _all(self, start: Prepared) -> None:
        """Every part, in order."""
        request, self.whole = self.request, start.checked.whole
        parts = sizes(start.plan, start.checked, self.seeds, request.controls)
        log = start.folder.events if start.folder is not None and len(self.seeds) > 1 else None
        root = start.folder.root if start.folder is not None else None
        self.progress = Progress(request.listeners, parts, log, root)
        with closing(self.progress.events):
            if len(self.seeds) > 1:
                tell_placed(start.placed, self.progress.events, start.folder)
            for seed in self.seeds:
                trained = self._attempt(seed_name(seed), partial(self._seed, seed, start))
                if trained is not None and request.controls:
                    self._controls(seed, *trained)
            if self.outcome.summaries:
                summaries = list(self.outcome.summaries.values())
                self.outcome.table = results.table(summaries, self.outcome.failed, request.controls)
                if start.folder is not None:
                    results.keep(start.folder, self.outcome.table)

    def _attempt(self, part: str, make: Callable[[], Any]) -> Any:
        """Make a part. None where it failed, and the others may not: where there are any, and hosts and disk work.

        RunPaused where it stands still for what its user has to decide.
        """
        if self.stopping.asked:  # in the part before, which had no steps left to pause after
            raise KeyboardInterrupt
        try:
            return make()
        except RunFailed as error:
            disk = isinstance(error.__cause__, OSError) or (error.__cause__ is not None and remedy(error.__cause__))
            # A budget is that of all parts.
            if isinstance(error, HostLost | RunPaused) or disk or len(self.progress.sizes) == 1:
                raise
            self.outcome.failed[part] = error
            self.progress.note(f"{part} failed: {error}")
            return None
        finally:
            self.progress.done(part)

    # -- seeds -----------------------------------------------------------------------------------------------------

    def _seed(self, seed: int, start: Prepared) -> tuple[MeshSpec, Summary, Folder | None]:
        """One seed: its mesh, its summary and its folder."""
        request = replace(self.request, listeners=(self.progress,), part=seed_name(seed))
        prepared: Prepared | None = start
        if len(self.seeds) > 1:
            # The long form with what is settled: every seed has the same hosts and threads, also when it is resumed.
            spec = start.plan.resolved().model_copy(update={"seed": seed})
            whole = start.folder.root if start.folder else None
            at = whole / "seeds" / str(seed) if whole else None
            request = self._part(request, spec, at, self.session.name)
            prepared = None
        root = request.at or (start.folder.root if start.folder else None)
        folder, extra = Folder.at(root) if root is not None else None, None
        summary = self._made(seed_name(seed), folder) if folder is not None else None
        again = summary is None or folder is None or folder.unlike(summary) is not None  # saved wrongly: once more
        if summary is None or again or self.finish is not None:
            self.progress.begin(seed_name(seed))
            summary, folder, extra = run_once(request, self.finish, self.session, prepared)
        self.outcome.summaries[seed], self.outcome.extras[seed] = summary, extra
        if folder is not None and (unlike := folder.unlike(summary)) is not None:
            self.outcome.failed[f"the export of {seed_name(seed)}"] = unlike
        return request.spec, summary, folder

    def _made(self, part: str, folder: Folder) -> Summary | None:
        """The summary of a part that stands whole. None where it is to be made, and said where it is once more."""
        summary, lacks = folder.made()
        if lacks:
            self.progress.note(f"{part} is completed: {lacks}")
        return summary

    def _part(self, request: Request, spec: MeshSpec, at: Path | None, backend: str | None) -> Request:
        """The request of a part, in a folder of its own within the run's."""
        within = self.outcome.folder.root if self.outcome.folder else None
        return replace(
            request, spec=spec, backend=backend, at=at, within=within, out=None, resume=None, collect=None,
            source_text=None, seeds=1, controls=False,
        )  # fmt: skip

    # -- controls --------------------------------------------------------------------------------------------------

    def _controls(self, seed: int, spec: MeshSpec, summary: Summary, folder: Folder | None) -> None:
        """Each student alone, and from the best single teacher by validation: inline, same weights and batch order."""
        if folder is None:
            raise MeshError("controls read the teachers' files", where="out", instead='out="runs"')
        plan = make_plan(spec, registry())
        found: dict[str, Any] = {}
        known: dict[tuple[str, str], dict[str, Any] | None] = {}
        for student, facts in summary["agents"].items():
            if facts["role"] not in TAUGHT or facts.get("dropped"):
                continue
            if (given := plan.inputs.get(student)) is not None:
                self._lacks(summary, f"{student}: no controls, for it sees what {given.source} says of a sample")
                continue
            alone = controls.alone(plan, student, facts["updates"]) if facts["updates"] else None
            if alone is None:
                self._lacks(summary, f"{student}: no control alone, for it was never updated itself")
            meshes: dict[str, MeshSpec | None] = {"alone": alone}
            best = facts.get("best_teacher")
            if best in plan.inputs:
                self._lacks(summary, f"{student}: no control from {best}, which sees what another agent says")
            elif best is not None:
                saved = folder.root.resolve() / "agents" / best
                try:
                    meshes["best_teacher"] = controls.from_best(plan, student, best, saved)
                except MeshError as error:
                    self._lacks(summary, f"{student}: no control from {best}, for {error.what}")
            if facts["updates"]:
                meshes["averaged"] = controls.averaged(plan, student, facts["updates"])
                meshes["pooled"] = controls.pooled(plan, student, facts["updates"])
            for which, mesh in meshes.items():
                part = control_name(seed, student, which)
                if mesh is not None:
                    mesh = controls.unseeded(plan, mesh, self.whole)
                    at = folder.root / "controls" / f"{student}-{which.replace('_', '-')}"
                    same = which, mesh.name if which == "averaged" else student  # one average is that of all it is of
                    if same not in known:
                        known[same] = self._attempt(part, partial(self._control, part, mesh, student, at, summary))
                    figures = known[same]
                    if figures is not None:
                        taught = {"teacher": best} if which == "best_teacher" else {}
                        found.setdefault(student, {})[which] = {**taught, **figures}
                    if figures is not None and "skipped" in figures:
                        self._lacks(summary, f"{part}: no such control, for {figures['skipped']}")
                self.progress.done(part)
        summary["controls"] = found
        folder.summarise(summary)

    def _lacks(self, summary: Summary, note: str) -> None:
        """Say beneath the tables, and now, what a reader would look for there."""
        if note not in summary["notes"]:
            summary["notes"].append(note)
        self.progress.note(note)

    def _control(self, part: str, mesh: MeshSpec, student: str, at: Path, whole: Summary) -> dict[str, Any]:
        """The student's figures in one control, or why there is none; its notes are added to the whole's."""
        summary = self._made(part, Folder.at(at))
        if summary is None:
            self.progress.begin(part)
            request = self._part(self.request, mesh, at, "inline")
            data = {part: value for part, value in request.made_of.items() if part == "data"}
            modules = {name: module for name, module in request.modules.items() if name in mesh.agents}
            try:
                own = replace(
                    request, modules=modules, made_of=data, listeners=(self.progress,), part=part, privacy=None
                )
                summary = run_once(own)[0]
            except RunFailed:
                raise
            except MeshError as error:  # a rule may need as many sources as it was written for
                return {"skipped": error.what}
        which = part.partition(", ")[2]  # alike in every seed
        notes = [f"{which}: {note}" for note in summary["notes"] if note not in whole["notes"]]
        whole["notes"] += [note for note in notes if note not in whole["notes"]]
        metrics: dict[str, Any] = summary["agents"][student]["metrics"]
        return metrics

    # -- the end ---------------------------------------------------------------------------------------------------

    def _page(self, seconds: float) -> None:
        """Write the page of a run that took so long."""
        if self.request.report and self.outcome.folder is not None:
            self.outcome.unpaged = write_at_end(self.outcome.folder.root, seconds)

    def _close(self) -> RunFailed | None:
        """Collect the folder; returns what is to be raised once everything was shown."""
        folder, failed = self.outcome.folder, self.outcome.failed
        failure: RunFailed | None = None
        if failed:
            first = next(iter(failed.values()))
            failure = RunFailed(
                f"{'; '.join(failed)} failed: {first.what}", where=first.where, instead=first.instead, file=first.file
            )
            failure.frames = frames_of(first)
        if folder is not None:
            self.outcome.place = str(folder.root)
            try:
                self.outcome.place = folder.collect()
            except RunFailed as error:
                failure = failure or error
            if failed and failure is not None:
                advice = self.request.advice.format(str(folder.root))
                failure.add_note(f"everything else is in {folder.root}; to try again what failed: {advice}")
        return failure

    def _stopped(self, error: BaseException) -> None:
        """Take what there is to where the folder is collected, unless nothing more is to be waited for, or was done."""
        refused = isinstance(error, MeshError) and not isinstance(error, RunFailed)
        if self.outcome.folder is not None and not refused and not isinstance(error, AtOnce):
            self.outcome.folder.salvage()
