"""What `run` and `resume` share: they show a run while it goes on, and its tables at the end."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING

from kdmesh.errors import printable

if TYPE_CHECKING:
    from kdmesh.engine.experiment import Outcome
    from kdmesh.engine.request import Request


def launch(request: Request, quiet: bool) -> int:
    """Make everything that was asked for; returns the exit code.

    Its output is the tables alone: what models, plugins and Ray print meanwhile goes where messages do.
    """
    from kdmesh.engine.experiment import Experiment
    from kdmesh.hosts.memory import keep_memory
    from kdmesh.report import live

    keep_memory()
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        Experiment(replace(request, listeners=(live.listener(sys.stderr, quiet),))).run(partial(show, out, quiet))
    return 0


def show(out: IO[str], quiet: bool, outcome: Outcome) -> None:
    """Print the tables, and where the folder is; to stderr, how to have its page where there is none."""
    from kdmesh.report import tables

    tables.results(out, list(outcome.summaries.values()), outcome.table, outcome.place)
    if outcome.unpaged and not quiet:
        print(printable(f"its page {outcome.unpaged}; to have it: kdmesh report {outcome.place}"), file=sys.stderr)
