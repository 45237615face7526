"""``kdmesh runs``: what was run, how it stands and what it gave, and what of it can go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, printable
from kdmesh.files import found_at

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kdmesh.report.run_folder import RunFolder
    from kdmesh.report.runs import Spare


def add(commands: Any) -> None:
    """Add the command."""
    about = "List the runs in a folder, newest first: how each stands, its verdicts and figures, and its size."
    command = commands.add_parser("runs", help="list runs, and what of them can go", description=about)
    command.add_argument(
        "folder", metavar="DIR", nargs="?", default="runs", help="where they are (default: %(default)s)"
    )
    command.add_argument("--json", action="store_true", help="as JSON")
    command.add_argument(
        "--clean",
        action="store_true",
        help="say what can go instead: what is past its term (`keep`), checkpoints of finished runs, runs of more than "
        "a day ago that never began to train, and files that a kill left half written",
    )
    command.add_argument("--yes", action="store_true", help="with --clean: delete it")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """List, or clean."""
    if args.yes and not args.clean:
        raise MeshError("deletes what --clean names, which is not asked for", where="--yes", instead="--clean --yes")
    if (what := found_at(args.folder)) != "folder":
        what = "is a file, not a folder" if what == "file" else what
        raise MeshError(what, file=args.folder or "''", instead="the folder that runs were written to: runs")
    from kdmesh.files import to_json
    from kdmesh.report.folders import FINISHED, RUNNING, find, of_many, trials_of
    from kdmesh.report.grid import show
    from kdmesh.report.runs import listed, row, row_of_many

    parent = Path(args.folder)
    found = [row(path, parent) for path in find(parent)]
    if args.clean:
        over = [path for path, _, status in of_many(parent) if status == FINISHED]
        trials = [row(path, parent) for root in over for path in trials_of(root)]
        every = [run for _, run in (*found, *trials) if run is not None]
        return clean([one for run in every for one in going(run)], args.yes, args.json)
    many = [row_of_many(path, parent, what, status) for path, what, status in of_many(parent)]
    if args.json:
        print(to_json([one.record() for one in [*(one for one, _ in found), *many]], 2))
    else:
        for rows in ([one for one, _ in found], many):
            if rows:
                show(sys.stdout, listed(rows))
        if not found and not many:
            print(f"no run in {printable(args.folder)}")
        for one in many:
            how = "" if one.status == RUNNING else "; its tables" if one.status == FINISHED else "; go on with it"
            print(
                printable(f"{one.kind} {one.status}{how}{': kdmesh resume' if how else ':'} {one.path}", breaks=False)
            )
    return 0


def going(run: RunFolder) -> list[Spare]:
    """What of a run can go, or is past the term that its mesh declares."""
    from kdmesh.engine.retention import due
    from kdmesh.report.folders import FINISHED, size_of
    from kdmesh.report.runs import Spare, spare

    found = spare(run)
    known = {one.path for one in found}
    past = due(run.path, run.manifest.get("mesh") or {}) if run.status == FINISHED else {}
    return [*found, *(Spare(run.path, one, size_of(one), why, True) for one, why in past.items() if one not in known)]


def clean(spares: Sequence[Spare], yes: bool, as_json: bool) -> int:
    """Say what can go, and delete it where that is asked for; what another process has begun to use stays."""
    from kdmesh.files import to_json
    from kdmesh.report.runs import amount

    gone: list[Spare] = []
    for one in spares:
        kept = _delete(one) if yes else ""
        if not kept:
            gone.append(one)
        if not as_json:  # in one line: a path is to be copied, or searched for
            print(printable(f"{amount(one.size):>8}  {one.path}  ({kept or one.why})", breaks=False))
    if as_json:
        told = [{"path": str(one.path), "bytes": one.size, "why": one.why, "deleted": yes} for one in gone]
        print(to_json(told, 2))
    elif spares:
        total = amount(sum(one.size for one in gone))
        print(f"{total} deleted" if yes else f"{total} in all; nothing was deleted: --clean --yes deletes it")
    else:
        print("nothing can go")
    return 0


def _delete(one: Spare) -> str:
    """Delete what can still go, holding the run's folder; else why it stays."""
    from kdmesh.contracts.run_files import MANIFEST
    from kdmesh.engine.lock import held
    from kdmesh.engine.retention import expire
    from kdmesh.files import read_json
    from kdmesh.report.runs import delete

    try:
        with held(one.run):
            if one.past:
                expire(one.run, (read_json(one.run / MANIFEST) or {}).get("mesh") or {})
                return ""
            return delete(one)
    except MeshError as error:
        return f"stays: {error.what}"
