"""``kdmesh forget RUN``: every place that a sample reached, and what can be taken out of these."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_plugins_dir, use_plugins_dir
from kdmesh.cli.output import say

if TYPE_CHECKING:
    import argparse

    from kdmesh.engine.forgetting.reached import Reached
    from kdmesh.report.grid import Grid
    from kdmesh.spec import MeshSpec
    from kdmesh.store import Store


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Name every place that samples of a run reached: files of its folder, entries of the store, weights, and other "
        "runs. With --remove take them out of what is not weights, and say what is to be retrained. The source of the "
        "data is not touched: take the samples out of it afterwards, since by it they are found."
    )
    command = commands.add_parser("forget", help="where samples of a run went, and take them out", description=about)
    command.add_argument("run", metavar="RUN", help="the folder of a run")
    command.add_argument(
        "--ids", metavar="FILE", required=True, help="the samples, an id a line: their numbers in the source, from 0"
    )
    command.add_argument("--column", metavar="NAME", help="ids are values of this column of the data")
    command.add_argument(
        "--store", metavar="DIR", help="the store to look through; off: none (default: the one that the run had)"
    )
    command.add_argument(
        "--runs",
        metavar="DIR",
        help="where to look for other runs with the samples (default: the parent of the run's)",
    )
    command.add_argument("--remove", action="store_true", help="take them out; without it nothing is changed")
    command.add_argument("--json", action="store_true", help="as JSON")
    add_plugins_dir(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Find, print, and take out."""
    use_plugins_dir(args)
    from kdmesh.engine.forgetting.asked import asked, listed
    from kdmesh.engine.forgetting.reached import reached
    from kdmesh.engine.forgetting.removing import pending, remove
    from kdmesh.engine.resume import refuse_part
    from kdmesh.files import to_json

    root = Path(args.run)
    spec = _mesh(root)
    refuse_part(root)
    ids = listed(Path(args.ids))
    store = _store(args, root)
    try:
        named = asked(root, spec, ids, args.column, pending(root))
        found = reached(root, spec, named, store, Path(args.runs) if args.runs else root.resolve().parent.parent)
        done = remove(root, found, store) if args.remove else None
    finally:
        if store is not None:
            store.close()
    if args.json:
        print(to_json({**found.record(root), "removed": done is not None}, 1))
    else:
        _print(found, root, done is not None)
    return 0


def _mesh(root: Path) -> MeshSpec:
    from kdmesh.contracts.run_files import RESOLVED
    from kdmesh.report.run_folder import read
    from kdmesh.spec.read import read_mesh

    read(root)  # which says what is no run's folder
    return read_mesh(root / RESOLVED)


def _store(args: argparse.Namespace, root: Path) -> Store | None:
    """The store that is asked for, else the one that the run had; None: none."""
    from kdmesh.engine.resume import begun
    from kdmesh.store import Store
    from kdmesh.store.store import OFF

    where = args.store if args.store is not None else begun(root).get("store") or OFF
    return None if where == OFF else Store.open(os.path.expanduser(where), limit_bytes=None)


def _print(found: Reached, root: Path, removed: bool) -> None:
    from kdmesh.report.grid import show as print_table

    count = len(found.asked.rows)
    goes = "was taken out" if removed else "goes"
    rows: list[dict[str, Any]] = [
        {"where": one.path, "what": one.what, "then": "stays" if one.change is None else goes} for one in found.places
    ]
    for held in found.entries:
        rows_of = "all its rows: whose they are is not known" if held.whole else f"{held.rows:,} rows"
        rows.append({"where": f"store: {held.digest[:12]}", "what": f"{held.agent} {rows_of}".strip(), "then": goes})
    from kdmesh.engine.forgetting.learned import SAYS

    for one in found.weights:
        rows.append({"where": one.path.relative_to(root).as_posix(), "what": SAYS[one.how], "then": "retrain"})
    rows += [
        {"where": one.relative_to(root).as_posix(), "what": "made of such weights: export it anew", "then": "stays"}
        for one in found.exported
    ]
    for run in found.runs:
        learned = [f"{', '.join(run.agents)} learned them"] if run.agents else []
        what = "; ".join([*filter(None, [run.began]), *learned])
        rows.append({"where": str(run.path), "what": what, "then": "forget there"})
    title = f"{count:,} {'sample' if count == 1 else 'samples'} reached {len(rows):,} places"
    if rows:
        print_table(sys.stdout, _grid(title, rows))
    else:
        say(title)
    for note in found.notes:
        say(note)
    _end(found, root, removed)


def _grid(title: str, rows: list[dict[str, Any]]) -> Grid:
    from kdmesh.report.grid import KEPT, Column, Grid

    columns = [Column("where", "where", spare=KEPT), Column("what", "what"), Column("then", "then")]
    return Grid(title, columns, rows)


def _end(found: Reached, root: Path, removed: bool) -> None:
    from kdmesh.contracts.run_files import FORGOTTEN, SUMS
    from kdmesh.files import sha256

    if found.weights:
        names = ", ".join(sorted({one.path.name for one in found.weights}))
        say(f"weights cannot be searched, nor can a sample be taken out of them. To be retrained: {names}")
    if not removed:
        say("nothing was changed: --remove takes out what goes")
        return
    say(f"{FORGOTTEN} keeps what was done, without the samples; the run is not resumed any more")
    if (root / SUMS).exists():
        say(f"sums are mended; keep this apart from the folder, for kdmesh verify --sum: {sha256(root / SUMS)}")
