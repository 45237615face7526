"""``kdmesh watch``: show a run from another terminal."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.output import complain
from kdmesh.errors import MeshError, printable

if TYPE_CHECKING:
    import argparse

    from kdmesh.contracts.events import Event
    from kdmesh.report.live import Display
    from kdmesh.report.run_folder import RunFolder

POLL = 0.5  # seconds between two looks
RUNS = "runs"


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Show a run, comparison or sweep of another process as it goes on, and its tables at its end. Ctrl-C ends the "
        "watching alone. "
        "A run that was interrupted is waited for, until it is resumed. Exit codes are those of the run."
    )
    command = commands.add_parser("watch", help="show a run that goes on elsewhere", description=about)
    command.add_argument("folder", metavar="DIR", nargs="?", help=f"its folder (default: the newest in {RUNS}/)")
    command.add_argument("--once", action="store_true", help="show how it stands, and end")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Watch."""
    from kdmesh.cli import watch_trials
    from kdmesh.report.folders import kind_of, newest

    if args.folder is None and newest(RUNS) is None:
        raise MeshError(f"there is no run in {RUNS}/ here", instead="kdmesh watch runs/<name>/<time>")
    folder = Path(args.folder if args.folder is not None else newest(RUNS) or RUNS)
    try:
        if what := kind_of(folder):
            return watch_trials.watch(folder, what, args.once)
        return watch(folder, args.once)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{folder} was only watched: nothing of it has changed") from None


def watch(root: Path, once: bool = False) -> int:
    """Show a run until it has ended; returns the exit code that it had."""
    from kdmesh.contracts.run_files import LOCK
    from kdmesh.files import locked
    from kdmesh.report import live
    from kdmesh.report.folders import RUNNING
    from kdmesh.report.follow import Follower
    from kdmesh.report.run_folder import read

    run = _whole(read(root))
    for remark in run.remarks:
        complain(f"note: {remark}")
    follower, said = Follower(root, run.seed_numbers), ""
    while True:
        if locked(root / LOCK):
            with closing(live.display(sys.stderr)) as display:
                _begin(display, follower.new())
                while not once and locked(root / LOCK):
                    time.sleep(POLL)
                    _show(display, follower.new())
                if once:
                    return 0
                _show(display, follower.new())  # the lock was given back: everything is written
        run = read(root)
        if (code := _ended(run)) is not None:
            return code
        if run.status not in (RUNNING, said):
            said = run.status
            complain(f"{run.name}: {said}; go on with: kdmesh resume {root}")
        if once:
            return 130
        time.sleep(POLL)


def _whole(run: RunFolder) -> RunFolder:
    """MeshError for a part of a run that is there."""
    if run.whole is not None:
        raise MeshError(f"this is a part of the run {run.whole}", file=str(run.path), instead=f"watch {run.whole}")
    return run


def _begin(display: Display, events: list[Event]) -> None:
    """Show how a run stands that was not watched until now, also what a display keeps for the end of a stage."""
    from kdmesh.report.follow import standing
    from kdmesh.report.words import say

    _show(display, standing(events))
    for stage in display.stages.values():
        for event in stage.held.values():
            display.line(say(event))


def _show(display: Display, events: list[Event]) -> None:
    """Show what is new. An event that has not what its kind has, in a file that was edited, is passed over."""
    for event in events:
        try:
            display(event)
        except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError) as error:
            complain(f"note: an event {event.kind} could not be shown: {error}")


def _ended(run: RunFolder) -> int | None:
    """Show what a run ended with; None where it has not ended."""
    from kdmesh.report import tables
    from kdmesh.report.folders import FAILED, FINISHED

    if run.status not in (FAILED, FINISHED):
        return None
    if run.summaries and (run.results is not None or len(run.seed_numbers) == 1):
        try:
            tables.results(sys.stdout, run.summaries, run.results or {}, printable(str(run.path)))
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise MeshError(
                f"its tables cannot be made: {type(error).__name__}: {error}",
                file=str(run.path),
                instead="files as a run writes them",
            ) from None
    if run.status == FINISHED:
        return 0
    complain(f"kdmesh: error: {run.error}")
    return 1
