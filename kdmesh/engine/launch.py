"""One seed of a mesh to its run folder: check, settle where it runs, train, measure, write."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.backends import Session
from kdmesh.backends.processes import guard, new_folder, new_mark
from kdmesh.contracts import events as kinds
from kdmesh.contracts.run_files import ENDPOINTS, FAULT, PLACEMENT
from kdmesh.engine import dropping, notes, spent
from kdmesh.engine.accounts import refuse_short, simulated
from kdmesh.engine.check import examine
from kdmesh.engine.checkpoint import Checkpoints
from kdmesh.engine.costs import declared
from kdmesh.engine.events import Events
from kdmesh.engine.folder import IDENTITY, Folder
from kdmesh.engine.looked_up import settled
from kdmesh.engine.observe import Observers, info
from kdmesh.engine.resume import as_begun, asked, begun, refuse_changes, refuse_others
from kdmesh.engine.run import Run
from kdmesh.engine.spared import kept_at
from kdmesh.engine.stopping import AtOnce, stoppable
from kdmesh.errors import MeshError, RunFailed, RunPaused
from kdmesh.files import place, reason, remedy, write, writing
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.profile import Profile
from kdmesh.hosts.side_inputs import distinct
from kdmesh.hosts.source import Source, digest
from kdmesh.hosts.state import HostConfig
from kdmesh.placement.settle import choose_backend, settle, threaded
from kdmesh.plugins import registry
from kdmesh.store import default_limit
from kdmesh.tables.fitting import Fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kdmesh.checks.checked import Checked
    from kdmesh.engine.request import Request
    from kdmesh.graph.plan import Plan
    from kdmesh.placement.settle import Placed
    from kdmesh.privacy.account import PartyAccount

SENT = 64 * 2**20  # bytes of data up to which hosts get them from the driver, rather than read them again


@dataclass
class Prepared:
    """A request that was checked: hosts and threads are settled, and there is a folder, if one is written."""

    request: Request  # with what was settled: threads, and of a run that goes on what it was begun with
    plan: Plan
    checked: Checked
    placed: Placed
    folder: Folder | None
    goes_on: bool  # the folder has been begun before
    accounts: dict[str, PartyAccount]  # of parties with a privacy budget that are simulated


def prepare(request: Request, session: Session) -> Prepared:
    """Check a request, settle where it runs, and make its folder, or find the one that goes on."""
    declared(os.environ)
    if request.resume is not None:
        request = replace(request, spec=as_begun(request.spec, request.resume))
    request = replace(request, spec=settled(request.spec, request.store))
    plan = make_plan(request.spec, registry())
    runs = request.within or request.resume or request.at or request.out
    accounts = {} if request.hosted is not None else simulated(plan, request.privacy, runs)
    here, began = request.ray_address is None, request.resume or request.within or request.at
    checked = examine(
        plan, request.modules, request.table, here, request.writers, request.store, began=began, sizes=request.sizes
    )
    refuse_short(plan, checked, accounts)
    chosen = choose_backend(plan, checked, request.modules, session, request.ray_address)
    placed = settle(plan, checked, request.modules, session)
    if session.name == "inline":
        checked.notes += notes.unused_inline(plan)
    request = replace(request, spec=threaded(request.spec, placed.threads))
    if chosen is not None:
        placed.lines, placed.facts = [*chosen.lines, *placed.lines], placed.facts or chosen.facts
    folder, goes_on = _folder(request, placed.plan, checked, session)
    if folder is not None:
        spent.looked(request.within or folder.root, checked.served)
    return Prepared(request, placed.plan, checked, placed, folder, goes_on, accounts)


def run_once(
    request: Request,
    finish: Callable[[Run], Any] | None = None,
    session: Session | None = None,
    prepared: Prepared | None = None,
) -> tuple[dict[str, Any], Folder | None, Any]:
    """Run one seed. Returns the summary, the folder, and what ``finish`` read from the hosts before they closed.

    ``session``: where the hosts live; by default one of the run's own, closed at its end. ``prepared``: the same
    request after :func:`prepare`, if that was called already. The folder is collected by the
    caller, who may have more to write.
    """
    if session is None:
        with Session(request.backend, request.ray_address, request.progress_timeout) as own:
            return run_once(request, finish, own, prepared)
    ready = prepared or prepare(request, session)
    try:
        with closing(Events(ready.folder.events if ready.folder else None)) as events:
            events.listeners += request.listeners
            try:
                with ready.plan.naming():
                    return _train(request, ready, session, events, finish)
            except BaseException as error:
                asked = isinstance(error, RunPaused) or not isinstance(error, Exception)
                failed = kinds.RunFailed(str(error) or type(error).__name__, asked)
                try:
                    events.emit(failed)
                except RunFailed:  # the log may be what could not be written: who listens is told all the same
                    events.tell(failed)
                raise
    except BaseException as error:
        if (as_told := told(error, request, ready.folder)) is error:
            raise
        raise as_told from error


def _train(
    request: Request, ready: Prepared, session: Session, events: Events, finish: Callable[[Run], Any] | None
) -> tuple[dict[str, Any], Folder | None, Any]:
    """What :func:`run_once` does with a log."""
    plan, checked, folder = ready.plan, ready.checked, ready.folder
    if folder is not None:
        plan = plan.without([agent for drop in dropping.read(folder.root) for agent in drop["agents"]])
    started, extra = time.perf_counter(), None
    tell_placed(ready.placed, events, folder)
    for text in checked.notes:
        events.emit(kinds.Note(text, checked=True))
    with stoppable() as stopping, _checkpoints(request, folder, session) as checkpoints:
        events.emit(kinds.HostsOpening(str(session.name), plan.hosts))
        root = folder.root if folder else None
        seconds, observing = request.checkpoint_seconds, Profile() if request.profiled else None
        patience = request.progress_timeout or float("inf")
        run = Run(
            plan,
            checked,
            session.backend,
            events,
            checkpoints,
            root,
            seconds,
            request.tested,
            observing,
            request.every,
            patience,
        )
        whole = request.within or root
        here = session.backend.here
        run.open(*blueprint(request, plan, checked, session.backend.near, whole, here, ready.accounts))
        stopping.run = run
        observers = Observers(run, info(run, ready.goes_on, request.part))
        observers.started()

        def collect(summary: dict[str, Any]) -> None:
            nonlocal extra
            if folder is not None:
                folder.agents(run, summary)
                folder.answers(run.answers)
                folder.summarise(summary)
                folder.provenance(summary)
            extra = finish(run) if finish is not None else None

        summary = run.execute(collect, ready.goes_on)
        observers.finished(summary)
        seconds = round(time.perf_counter() - started, 3)
        events.emit(kinds.RunFinished(seconds, str(root) if root else None))
    return summary, folder, extra


def tell_placed(placed: Placed, events: Events, folder: Folder | None) -> None:
    """Tell where agents live and why, and keep the arithmetic with the run."""
    if placed.lines:
        events.emit(kinds.Placed(placed.plan.hosts, placed.lines))
        if folder is not None and placed.facts:
            folder.json(PLACEMENT, placed.facts)


def blueprint(
    request: Request,
    plan: Plan,
    checked: Checked,
    near: bool = False,
    root: Path | None = None,
    here: bool = False,
    accounts: Mapping[str, PartyAccount] | None = None,
) -> tuple[HostConfig, Source]:
    """What the hosts are built from, and where they have the data from.

    ``root``: the folder of the whole run; ``here``: the hosts will be in this process, and read nothing again;
    ``accounts``: of parties with a privacy budget.
    """
    private = any(stream.private for stream in checked.streams.values())
    near_by = not checked.table.unread and checked.table.x.nbytes <= SENT
    sent = (
        private or near_by or here or checked.table.personal is not None
    )  # where samples are private, no host reads those of others
    config = HostConfig(
        plan,
        request.modules,
        checked.shapes,
        request.strict_signals,
        checked.reading.files(),
        checked.left_out,
        checked.learned,
        distinct(plan, checked.table),
        request.writers,
        request.profiled,
        checked.statistics,
        checked.reading.inputs,
        registry().lent,
        kept_at(request.store),
        default_limit(),
        near=near,
        served=checked.served,
        journals=str(root / ENDPOINTS) if root is not None else "",
        accounts=accounts or {},
        licences=checked.origins(plan) if root is not None else {},
    )
    return config, Source(
        checked.table if sent or not checked.table.deterministic else request.table,
        "" if sent else _expected(request, checked),
        checked.streams if private else None,
        Fitted.of(checked.table) if checked.table.prepared is not None else None,
        read=checked.reading.read if here else None,
    )


def _expected(request: Request, checked: Checked) -> str:
    """What other machines must read; nothing where there are none, or where every reading differs."""
    table = checked.table
    return digest(table) if request.ray_address is not None and table.deterministic else ""


def _folder(request: Request, plan: Plan, checked: Checked, session: Session) -> tuple[Folder | None, bool]:
    """The run's folder, and whether it was begun before: then it must have asked for the same."""
    at = request.resume or request.at
    if at is not None and begun(at):
        folder = Folder.at(at, request.collect)
        refuse_changes(folder, plan, checked, request.within)
        return folder, True
    if request.made_of:
        refuse_others(request.made_of, plan, checked)
    if at is not None:
        folder = Folder.make(at)
    elif request.out is not None:
        folder = Folder(request.out, plan.spec.name, request.collect)
    else:
        return None, False
    how: dict[str, Any] = {
        "backend": session.name,
        "strict_signals": request.strict_signals,
        "beside": request.beside,
        "seeds": request.seeds,
        "controls": request.controls,
        "tested": request.tested,
    }
    if request.store is not None:
        how["store"] = request.store
    if folder.place is not None:
        how["collect"] = folder.place.url
    if request.within is not None:
        how["within"] = os.path.relpath(request.within, folder.root)
        how["whole"] = str(request.within.resolve())
    try:
        folder.asked(plan, checked, request.source_text, how)
    except OSError as error:
        raise RunFailed(
            f"the run's folder could not be written: {reason(error)}",
            file=str(folder.root),
            instead=f"{remedy(error) or 'free disk space'}, then run again",
        ) from error
    return folder, False


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


def told(error: BaseException, request: Request, folder: Folder | None) -> BaseException:
    """What to raise for what ended a run: what stands, and how to go on; of an error nobody foresaw, in short."""
    if folder is None:
        return error
    advice = request.advice.format(str(request.within or folder.root))
    if not isinstance(error, Exception):  # an interruption
        return (AtOnce if isinstance(error, AtOnce) else KeyboardInterrupt)(f"go on with: {advice}")
    if not isinstance(error, MeshError) and (mend := remedy(error, writes := writing(error))):
        # training is not at fault, nor is kdmesh
        doing = "a file of the run could not be written" if writes else f"the run failed {place(error)}"
        error = RunFailed(f"{doing}: {reason(error)}", instead=f"{mend}, then: {advice}")
    elif not isinstance(error, MeshError):
        path = folder.root / FAULT
        message = next(iter(str(error).splitlines()), "")
        instead = f"see the traceback in {path}"
        try:
            write(path, "".join(traceback.format_exception(error)))
        except OSError as full:
            instead = f"{path} could not be written: {reason(full)}"
        error = RunFailed(f"the run failed: {type(error).__name__}: {message}", instead=instead)
    if isinstance(error, RunFailed) and not getattr(error, "__notes__", None):
        error.add_note(f"what was learned is in {request.within or folder.root}; go on with: {advice}")
    return error
