"""From a mesh to a finished run folder: check, open the backend, train, measure, write, close."""

from __future__ import annotations

import sys
import time
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.agents.facts import distinct
from kdmesh.agents.host import Blueprint
from kdmesh.agents.memory import keep_memory
from kdmesh.agents.source import Source, digest
from kdmesh.backends import Session
from kdmesh.backends.processes import guard, new_folder, new_mark
from kdmesh.engine import controls, dropping
from kdmesh.engine.check import examine
from kdmesh.engine.checkpoint import Checkpoints
from kdmesh.engine.events import Events
from kdmesh.engine.folder import IDENTITY, Folder
from kdmesh.engine.observe import observers
from kdmesh.engine.placing import settle
from kdmesh.engine.resume import asked, refuse_changes
from kdmesh.engine.run import Run
from kdmesh.engine.stopping import stoppable
from kdmesh.errors import MeshError, RunFailed
from kdmesh.files import write
from kdmesh.graph.plan import make_plan
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from kdmesh.engine.check import Checked
    from kdmesh.engine.collect import Place
    from kdmesh.engine.events import Listener
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec
    from kdmesh.streams.table import Table


@dataclass
class Request:
    """What to run, and what Python gave beside the file."""

    spec: MeshSpec
    backend: str = "ray"
    ray_address: str | None = None
    out: Path | None = None  # None: no folder is written
    collect: Place | None = None  # where the folder is taken at the end: beneath it, or for a run that goes on, there
    source_text: str | None = None
    beside: list[str] = field(default_factory=list)  # folders with code that the file names
    modules: dict[str, nn.Module] = field(default_factory=dict)
    table: Table | None = None
    listeners: tuple[Listener, ...] = ()
    strict_signals: bool = False  # what a consensus gives is checked
    resume: Path | None = None  # the folder of the run that goes on
    from_start: bool = False  # a stage whose checkpoints are all damaged may begin anew
    checkpoint_seconds: float = 60.0
    progress_timeout: float = 600.0  # seconds without a result after which a host counts as lost


SENT = 64 * 2**20  # bytes of data up to which hosts get them from the driver, rather than read them again


def run_once(
    request: Request, finish: Callable[[Run], Any] | None = None, session: Session | None = None
) -> tuple[dict[str, Any], Folder | None, Any]:
    """Run one seed. Returns the summary, the folder, and what ``finish`` read from the hosts before they closed.

    ``session``: where the hosts live; by default one of the run's own, closed at its end. The folder of a run that
    ends well is collected by the caller, who may have more to write.
    """
    if session is None:
        with Session(request.backend, request.ray_address, request.progress_timeout) as own:
            return run_once(request, finish, own)
    plan = make_plan(request.spec, registry())
    checked = examine(plan, request.modules, request.table)
    placed = settle(plan, checked, request, session)
    plan = placed.plan
    folder = _folder(request, plan, checked)
    if folder is not None:
        plan = plan.without([agent for drop in dropping.read(folder.root) for agent in drop["agents"]])
    events = Events(folder.events if folder else None)
    events.listeners += request.listeners
    placed.tell(events, folder)
    for text in checked.notes:
        events.emit("note", text=text)
    started, extra = time.perf_counter(), None
    try:
        with stoppable() as stopping, _checkpoints(request, folder, session) as checkpoints:
            events.emit("hosts_opening", backend=session.name, hosts=plan.hosts)
            private = any(stream.private for stream in checked.streams.values())
            small = checked.table.x.nbytes <= SENT and not private
            root = folder.root if folder else None
            run = Run(plan, checked, session.backend, events, checkpoints, root, request.checkpoint_seconds)
            run.open(
                Blueprint(
                    plan,
                    request.modules,
                    checked.shapes,
                    request.strict_signals,
                    checked.reading.files(),
                    checked.left_out,
                    checked.learned,
                    distinct(plan, checked.table),
                ),
                Source(
                    checked.table if small else request.table,
                    "" if small else _expected(request, checked),
                    checked.streams if private else None,
                ),
            )
            stopping.run = run
            registry().observe("kdmesh_run_started", run=run)
            events.listeners.append(observers(run))

            def collect(summary: dict[str, Any]) -> None:
                nonlocal extra
                if folder is not None:
                    folder.agents(run, summary)
                    folder.json("summary.json", summary)
                extra = finish(run) if finish is not None else None

            summary = run.execute(collect, request.resume is not None)
            registry().observe("kdmesh_run_finished", run=run, summary=summary)
            seconds = round(time.perf_counter() - started, 3)
            events.emit("run_finished", seconds=seconds, folder=str(root) if root else None)
        return summary, folder, extra
    except BaseException as error:
        events.emit("run_failed", error=str(error) or type(error).__name__)
        if folder is None:
            raise
        told = error if isinstance(error, MeshError) else _told(error, folder)
        if not stopping.at_once:
            folder.salvage()
        if told is error:
            raise
        raise told from error
    finally:
        events.close()


def _expected(request: Request, checked: Checked) -> str:
    """What other machines must read; nothing where there are none, or where every reading differs."""
    table = checked.table
    return digest(table) if request.ray_address is not None and table.deterministic else ""


def _folder(request: Request, plan: Plan, checked: Checked) -> Folder | None:
    """The run's folder: a new one, or the one whose run goes on, which must have asked for the same."""
    if request.resume is not None:
        folder = Folder.at(request.resume, request.collect)
        refuse_changes(folder, plan, checked)
        return folder
    if request.out is None:
        return None
    folder = Folder(request.out, plan.spec.name, request.collect)
    begun = {"backend": request.backend, "strict_signals": request.strict_signals, "beside": request.beside}
    if folder.place is not None:
        begun["collect"] = folder.place.url
    folder.asked(plan, checked, request.source_text, begun)
    return folder


@contextmanager
def _checkpoints(request: Request, folder: Folder | None, session: Session) -> Iterator[Checkpoints | None]:
    """Where checkpoints go. A run on Ray without a folder keeps them for as long as it lasts: hosts can be lost."""
    if folder is not None:
        run = asked(folder.root).get(IDENTITY, "")
        yield Checkpoints(folder.checkpoints, run, request.spec.seed, request.from_start)
    elif session.name == "inline":
        yield None
    else:
        root = new_folder()
        guarding = guard(new_mark(), root)  # removes it also where this process is killed
        try:
            yield Checkpoints(Path(root) / "checkpoints", seed=request.spec.seed)
        finally:
            guarding.communicate()


def _told(error: BaseException, folder: Folder) -> BaseException:
    """What to raise for an interruption, or an error nobody foresaw: in short, with the folder that tells more."""
    if not isinstance(error, Exception):
        return KeyboardInterrupt(f"go on with: kdmesh resume {folder.root}")
    path = folder.root / "error.txt"
    write(path, "".join(traceback.format_exception(error)))
    said = next(iter(str(error).splitlines()), "")
    return RunFailed(f"the run broke: {type(error).__name__}: {said}", instead=f"see the traceback in {path}")


def launch(request: Request, *, seeds: int = 1, controls: bool = False, quiet: bool = False) -> int:
    """What `kdmesh run` and `kdmesh resume` do; prints the tables and returns the exit code."""
    from kdmesh.report import live, paired, tables

    keep_memory()
    summaries, failures = [], []
    with ExitStack() as ending, Session(request.backend, request.ray_address, request.progress_timeout) as session:
        for number in range(seeds):
            spec = request.spec.model_copy(update={"seed": request.spec.seed + number})
            own = replace(request, spec=spec, listeners=(live.listener(sys.stderr, quiet or seeds > 1),))
            summary, folder, _ = run_once(own, session=session)
            assert folder is not None
            if controls:
                summary["controls"] = run_controls(own, summary, folder)
                folder.json("summary.json", summary)
            if number == seeds - 1:  # from here to the end of the session
                ending.enter_context(stoppable(finished=True))
            summaries.append(summary)
            place = str(folder.root)
            if (unlike := folder.unlike(summary)) is not None:
                failures.append(unlike)
            try:
                place = folder.collect()
            except RunFailed as error:  # told after the results, which are here
                failures.append(error)
            if seeds > 1:
                print(f"seed {spec.seed}: {place}", file=sys.stderr)
        if seeds > 1:
            tables.show(sys.stdout, tables.seeds_table(paired.over_seeds(summaries)))
        else:
            parts = [tables.rounds_table(summary["rounds"])] if summary["rounds"] else []
            tables.show(sys.stdout, *parts, tables.final_table(summary))
            print(f"{place}  ({summary['wall_s']:.1f} s)")
    for failure in failures[:-1]:
        print(f"kdmesh: {failure}", file=sys.stderr)
    if failures:
        raise failures[-1]
    return 0


def run_controls(request: Request, summary: dict[str, Any], folder: Folder) -> dict[str, Any]:
    """Each student alone, and from the best single teacher by validation: inline, same weights and batch order."""
    plan = make_plan(request.spec, registry())
    best = summary["best_teacher"]
    found: dict[str, Any] = {}
    for student, facts in summary["agents"].items():
        if facts["role"] not in ("student", "assistant", "peer") or facts.get("dropped"):
            continue
        found[student] = {"alone": _control(request, controls.alone(plan, student, facts["updates"]), student)}
        if best is not None:
            mesh = controls.from_best(plan, student, best, folder.root.resolve() / "agents" / best)
            if mesh is not None:
                try:
                    metrics = _control(request, mesh, student)
                except MeshError as error:  # a rule may need as many sources as it was written for
                    metrics = {"skipped": error.what}
                found[student]["best_teacher"] = {"teacher": best, **metrics}
    return found


def _control(request: Request, mesh: MeshSpec, student: str) -> dict[str, Any]:
    modules = {name: module for name, module in request.modules.items() if name in mesh.agents}
    summary, _, _ = run_once(Request(mesh, "inline", modules=modules, table=request.table))
    metrics: dict[str, Any] = summary["agents"][student]["metrics"]
    return metrics
