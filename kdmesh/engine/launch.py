"""From a mesh to a finished run folder: check, open the backend, train, measure, write, close."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdmesh.agents.host import Blueprint
from kdmesh.agents.source import Source
from kdmesh.backends import make_backend
from kdmesh.engine import controls
from kdmesh.engine.check import examine
from kdmesh.engine.checkpoint import Checkpoints
from kdmesh.engine.events import Events
from kdmesh.engine.folder import Folder
from kdmesh.engine.run import Run
from kdmesh.graph.plan import make_plan
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from kdmesh.engine.events import Listener
    from kdmesh.spec import MeshSpec
    from kdmesh.streams.table import Table


@dataclass
class Request:
    """What to run, and what Python gave beside the file."""

    spec: MeshSpec
    backend: str = "ray"
    ray_address: str | None = None
    out: Path | None = None  # None: no folder is written
    source_text: str | None = None
    modules: dict[str, nn.Module] = field(default_factory=dict)
    table: Table | None = None
    listeners: tuple[Listener, ...] = ()


def run_once(request: Request, finish: Callable[[Run], Any] | None = None) -> tuple[dict[str, Any], Folder | None, Any]:
    """Run one seed. Returns the summary, the folder, and what ``finish`` read from the hosts before they closed."""
    plan = make_plan(request.spec, registry())
    checked = examine(plan, request.modules, request.table)
    folder = Folder(request.out, plan.spec.name) if request.out is not None else None
    events = Events(folder.events if folder else None)
    events.listeners += request.listeners
    backend = make_backend(request.backend, request.ray_address)
    started = time.perf_counter()
    try:
        with _terminable():
            if folder is not None:
                folder.asked(plan, checked, request.source_text)
            backend.open(Blueprint(plan, request.modules, checked.shapes), Source(request.table))
            run = Run(plan, checked, backend, events, Checkpoints(folder.checkpoints) if folder else None)
            registry().manager.hook.kdmesh_run_started(run=run)
            summary = run.execute()
            if folder is not None:
                folder.agents(run, summary)
                folder.json("summary.json", summary)
            extra = finish(run) if finish is not None else None
            registry().manager.hook.kdmesh_run_finished(run=run, summary=summary)
            events.emit(
                "run_finished", seconds=round(time.perf_counter() - started, 3), folder=str(folder.root) if folder else None
            )
        return summary, folder, extra
    except BaseException as error:
        events.emit("run_failed", error=str(error) or type(error).__name__)
        raise
    finally:
        backend.close()
        events.close()


def launch(
    spec: MeshSpec,
    *,
    backend: str,
    ray_address: str | None,
    out: Path,
    seeds: int,
    controls: bool,
    quiet: bool,
    source_text: str | None,
) -> int:
    """What `kdmesh run` does; prints the tables and returns the exit code."""
    from kdmesh.report import live, paired, tables

    summaries = []
    for number in range(seeds):
        seeded = spec.model_copy(update={"seed": spec.seed + number})
        request = Request(
            seeded, backend, ray_address, out, source_text, listeners=(live.listener(sys.stderr, quiet or seeds > 1),)
        )
        summary, folder, _ = run_once(request)
        assert folder is not None
        if controls:
            summary["controls"] = run_controls(request, summary, folder)
            folder.json("summary.json", summary)
        summaries.append(summary)
        if seeds > 1:
            print(f"seed {seeded.seed}: {folder.root}", file=sys.stderr)
    if seeds > 1:
        tables.show(sys.stdout, tables.seeds_table(paired.over_seeds(summaries)))
    else:
        parts = [tables.rounds_table(summary["rounds"])] if summary["rounds"] else []
        tables.show(sys.stdout, *parts, tables.final_table(summary))
        print(f"{folder.root}  ({summary['wall_s']:.1f} s)")
    return 0


def run_controls(request: Request, summary: dict[str, Any], folder: Folder) -> dict[str, Any]:
    """Each student alone, and from the best single teacher by validation: inline, same weights and batch order."""
    plan = make_plan(request.spec, registry())
    best = summary["best_teacher"]
    found: dict[str, Any] = {}
    for student, facts in summary["agents"].items():
        if facts["role"] not in ("student", "assistant", "peer"):
            continue
        found[student] = {"alone": _control(request, controls.alone(plan, student, facts["updates"]), student)}
        if best is not None:
            weights = str(folder.root.resolve() / "agents" / best / "model.safetensors")
            mesh = controls.from_best(plan, student, best, weights)
            if mesh is not None:
                found[student]["best_teacher"] = {"teacher": best, **_control(request, mesh, student)}
    return found


def _control(request: Request, mesh: MeshSpec, student: str) -> dict[str, Any]:
    modules = {name: module for name, module in request.modules.items() if name in mesh.agents}
    summary, _, _ = run_once(Request(mesh, "inline", modules=modules, table=request.table))
    metrics: dict[str, Any] = summary["agents"][student]["metrics"]
    return metrics


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: hosts are closed, the exit code is 130."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


