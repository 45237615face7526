"""What `run`, `resume` and `report` share: a run is shown while it goes on, its tables at the end, and measured."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING

from kdmesh.errors import MeshError, printable

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.engine.experiment import Outcome
    from kdmesh.engine.request import Request


def launch(request: Request, quiet: bool, measured: bool = False) -> int:
    """Make everything that was asked for; returns the exit code. ``measured``: agents' latencies, too, at the end.

    Its output is the tables alone: what models, plugins and Ray print meanwhile goes where messages do.
    """
    from kdmesh.engine.experiment import Experiment
    from kdmesh.hosts.memory import keep_memory
    from kdmesh.report import live

    keep_memory()
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        made = Experiment(replace(request, listeners=(live.listener(sys.stderr, quiet),)))
        outcome = made.run(partial(show, out, quiet))
        if measured and outcome.folder is not None:
            root = outcome.folder.root
            try:
                measure(out, root, quiet)
            except MeshError as error:
                error.add_note(f"the run itself has finished: {root}")
                raise
            if request.report and not outcome.unpaged:
                write_page(root, interactive=False)
            outcome.folder.collect()
    return 0


def measure(out: IO[str], root: Path, quiet: bool, code: bool = True) -> bool:
    """Measure the latencies of a finished run and print them; returns whether any agent could be measured."""
    from kdmesh.engine import latency
    from kdmesh.report.grid import show as print_tables
    from kdmesh.report.latency import tables
    from kdmesh.report.run_folder import read

    def told(line: str) -> None:
        if not quiet:
            print(printable(f"latency of {line}"), file=sys.stderr, flush=True)

    try:
        found = latency.measure(root, told, code)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the run has finished; to measure what is left: kdmesh report {root} --measure"
        ) from None
    print_tables(out, *tables(found, read(root)))
    out.flush()
    return bool(found["agents"])


def write_page(root: Path, path: Path | None = None, interactive: bool = True, samples: bool | None = None) -> Path:
    """Write the page of a folder, by default into it; returns where it is.

    ``samples``: with samples of the data or without, and with sections of plugins; None: neither, as a run writes it.
    """
    from kdmesh.report.page.blocks import PAGE
    from kdmesh.report.page.facts import page_of
    from kdmesh.report.page.html import save

    path = root / PAGE if path is None else path
    save(path, page_of(root, at=path.parent, whole=samples is not None, samples=bool(samples)), interactive=interactive)
    return path


def show(out: IO[str], quiet: bool, outcome: Outcome) -> None:
    """Print the tables, and where the folder is; to stderr, how to have its page where there is none."""
    from kdmesh.report import grid, profile, tables

    tables.results(out, list(outcome.summaries.values()), outcome.table, outcome.place)
    grid.show(out, *profile.tables(outcome.summaries))
    if outcome.unpaged and not quiet:
        print(f"its page {printable(outcome.unpaged)}; to have it:", file=sys.stderr)
        print(f"  kdmesh report {printable(str(outcome.place))}", file=sys.stderr)
