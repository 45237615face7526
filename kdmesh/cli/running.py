"""What `run` and `resume` share: they show a run while it goes on, and its tables at the end."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING

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
        Experiment(replace(request, listeners=(live.listener(sys.stderr, quiet),))).run(partial(show, out))
    return 0


def show(out: IO[str], outcome: Outcome) -> None:
    """Print the tables, and where the folder is."""
    from kdmesh.report import tables

    summaries = list(outcome.summaries.values())
    if len(summaries) > 1:
        tables.show(out, tables.seeds_table(outcome.table["over_seeds"]))
    else:
        for summary in summaries:
            parts = [tables.rounds_table(summary["rounds"])] if summary["rounds"] else []
            tables.show(out, *parts, tables.final_table(summary))
    verdicts = outcome.table.get("over_seeds", {}).get("verdicts")
    if verdicts:
        tables.show(out, tables.verdict_table(outcome.table["over_seeds"]))
    elif len(summaries) > 1:
        print("no verdict: --controls trains what the students are to be compared with", file=out)
    seconds = sum(summary["wall_s"] for summary in summaries)
    without = " without controls" if outcome.table.get("controls") else ""
    print(f"{outcome.place}  (training and tests{without}: {seconds:.1f} s)", file=out)
    out.flush()  # what is left, to end Ray, takes seconds
