"""``kdmesh watch`` of a comparison or a sweep: how far its trials are, and its tables at its end."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, printable

if TYPE_CHECKING:
    from kdmesh.report.many import Many

POLL = 0.5  # seconds between two looks


@dataclass
class Far:
    """How far it is, as its ``progress.json`` says: see :class:`kdmesh.compare.making.Told`."""

    trials: int = 0
    whole: int = 0
    done: int = 0
    total: int = 0
    running: dict[str, float] = field(default_factory=dict)
    line: str = ""


def watch(root: Path, what: str, once: bool = False) -> int:
    """Show a comparison or sweep (``what``) until it has ended; returns the exit code that it had."""
    from kdmesh.contracts.run_files import LOCK
    from kdmesh.files import locked, read_json
    from kdmesh.report.folders import FAILED, FINISHED, MANY, RUNNING, standing
    from kdmesh.report.many import listener

    said, seen = "", 0
    while True:
        if locked(root / LOCK):
            with closing(listener(sys.stderr)) as shown:
                seen = _show(shown, root, seen)
                while not once and locked(root / LOCK):
                    time.sleep(POLL)
                    seen = _show(shown, root, seen)
            if once:
                return 0
        table = read_json(root / MANY[what][1])
        status = standing(root, table)
        if table is not None and status in (FAILED, FINISHED):
            _tables(root, what, table)
            if status == FINISHED:
                return 0
            failed = len(table.get("failed") or (table.get("final") or {}).get("failed") or ())
            print(
                printable(f"kdmesh: error: {failed} trials failed; to try again: kdmesh resume {root}"), file=sys.stderr
            )
            return 1
        if status not in (RUNNING, said):
            said = status
            print(printable(f"{what} {status}; go on with: kdmesh resume {root}"), file=sys.stderr, flush=True)
        if once:
            return 130
        time.sleep(POLL)


def _show(shown: Many, root: Path, seen: int) -> int:
    """Show the lines after number ``seen``, and how far it is; returns the number of the last line."""
    from kdmesh.contracts.run_files import PROGRESS
    from kdmesh.files import read_json

    told = read_json(root / PROGRESS)
    if told is None:  # it plans, or has just ended
        return seen
    try:
        far = Far(int(told["trials"]), int(told["whole"]), int(told["done"]), int(told["total"]))
        far.running = {str(name): float(share) for name, share in told["running"].items()}
        lines = [(int(number), str(text)) for number, text in told["lines"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return seen  # of another version
    for number, text in lines:
        if number > seen:
            seen, far.line = number, text
            shown(far)
    far.line = ""
    shown(far)
    return seen


def _tables(root: Path, what: str, table: dict[str, Any]) -> None:
    from kdmesh.report.compare_table import compare_tables
    from kdmesh.report.grid import show
    from kdmesh.report.run_folder import MISREAD
    from kdmesh.report.sweep_table import sweep_tables

    try:
        show(sys.stdout, *(compare_tables if what == "comparison" else sweep_tables)(table))
    except MISREAD as error:
        raise MeshError(
            f"its tables cannot be made: {type(error).__name__}: {error}",
            file=str(root),
            instead=f"files as they were written: kdmesh resume {root}",
        ) from None
    print(printable(str(root)))
