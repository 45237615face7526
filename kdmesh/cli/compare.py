"""``kdmesh compare``: paired trials of several meshes, and what they show."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import (
    add_plugins_dir,
    allow_code,
    beside,
    import_from,
    use_plugins_dir,
)
from kdmesh.cli.run import seeds
from kdmesh.cli.trials import BEFORE, OUT, add_trials, advised, made, more, refuse_url
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping

SEEDS = 10  # where nobody says how many


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Train meshes with the same seeds on the same split, side by side, and say what their paired differences show. "
        "Exit code 1 where a trial failed; `kdmesh resume DIR` goes on with an interrupted comparison."
    )
    command = commands.add_parser("compare", help="compare meshes by paired trials", description=about)
    command.add_argument(
        "files", metavar="FILE", nargs="+", help="meshes in YAML, names of bundled ones, or folders of finished runs"
    )
    command.add_argument(
        "--variant",
        metavar="CHANGES",
        action="append",
        default=[],
        help="also compare the first FILE with changes: '[NAME:] PATH=VALUE [PATH=VALUE ...]' (repeatable)",
    )
    command.add_argument(
        "--set", metavar="PATH=VALUE", action="append", default=[], dest="overrides", help="change a field in all"
    )
    command.add_argument(
        "--agent",
        metavar="[CONTENDER=]AGENT",
        action="append",
        default=[],
        help="whose figures are compared; by default the one student (repeatable)",
    )
    command.add_argument("--seeds", metavar="N", type=seeds, default=SEEDS, help="run seeds (default: %(default)s)")
    command.add_argument(
        "--splits", metavar="N", type=seeds, default=1, help="splits, each with every seed (default: %(default)s)"
    )
    command.add_argument("--no-controls", action="store_true", help="do not train students alone and by one teacher")
    command.add_argument("--each", action="store_true", help="compare every pair, not only with the first FILE")
    add_plugins_dir(command)
    add_trials(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Compare."""
    use_plugins_dir(args)
    refuse_url(args)
    from kdmesh.compare.contender import contenders
    from kdmesh.compare.finished import are_runs
    from kdmesh.plugins import registry

    registry().warn()
    if are_runs(args.files):
        return finished(args)
    with advised(BEFORE):
        folders = [beside(file) for file in args.files]
        given = contenders(args.files, args.variant, args.overrides, folders)
        for one in given:
            allow_code(one.spec, args)
            import_from(one.beside)
        from kdmesh.compare.comparison import Asked, begin, design

        asked = Asked(
            args.seeds,
            args.splits,
            not args.no_controls,
            args.equal,
            "each" if args.each else "first",
            _agents(args.agent),
            args.backend or "inline",
            args.strict_signals,
            args.workers,
            args.store,
        )
        planned, steps = design(given, asked)
        root = begin(Path(args.out), planned)
    return make(root, args, steps)


def finished(args: argparse.Namespace) -> int:
    """Show the tables of runs that are there already; nothing is trained or written.

    MeshError for an argument that is about trials.
    """
    from kdmesh.compare.analysis import analyse
    from kdmesh.compare.finished import of_runs
    from kdmesh.report.run_folder import MISREAD

    wrong = {
        "--variant": args.variant,
        "--set": args.overrides,
        "--splits": args.splits > 1,
        "--seeds": args.seeds != SEEDS,
        "--no-controls": args.no_controls,
        "--strict-signals": args.strict_signals,
        "--workers": args.workers,
        "--backend": args.backend,
        "--ray-address": args.ray_address,
        "--out": args.out != OUT,
        "--store": args.store,
    }
    if given := [name for name, value in wrong.items() if value]:
        raise MeshError("runs are compared as they are", where=given[0], instead="mesh files, which are trained")
    design, summaries, scores = of_runs(args.files, _agents(args.agent), args.equal, "each" if args.each else "first")
    try:
        table = analyse(design, summaries, scores=scores)
    except MISREAD as error:
        what = f"their summaries are not as they were written ({type(error).__name__}: {error})"
        raise MeshError(what, file=args.files[0], instead="runs as they were written") from None
    show(table)
    return 0


def resume(root: Path, args: argparse.Namespace) -> int:
    """Go on with a comparison, for ``kdmesh resume``."""
    from kdmesh.compare.design import DESIGN, read
    from kdmesh.spec.read import parse

    begun = read(root)
    for entry in begun.contenders.values() if begun is not None else ():
        allow_code(parse(entry.mesh, file=str(root / DESIGN)), args)
    more(root, args)
    return make(root, args)


def make(root: Path, args: argparse.Namespace, steps: Mapping[str, int] | None = None) -> int:
    """Make what lacks of a comparison, and show its tables."""
    with advised(f"go on with: kdmesh resume {root}"):
        from kdmesh.compare.comparison import TABLE, Comparison

        comparison = Comparison(
            root,
            None,
            args.ray_address,
            args.checkpoint_seconds,
            args.progress_timeout,
            not args.no_report,
        )
        return made(comparison, TABLE, args, show, steps)


def show(table: Mapping[str, Any], root: Path | None = None) -> None:
    """Print a comparison's tables, and where its folder is, if it has one."""
    from kdmesh.report import grid
    from kdmesh.report.compare_table import compare_tables

    if table.get("trials"):
        grid.show(sys.stdout, *compare_tables(table))
    if root is not None:
        print(root)


def _agents(given: list[str]) -> dict[str, str]:
    """By contender, or for all under "": the agent that the command line names."""
    found: dict[str, str] = {}
    for one in given:
        contender, _, agent = one.rpartition("=")
        if not agent or contender in found:
            raise MeshError(f"found {one!r}", where="--agent", instead="AGENT, or CONTENDER=AGENT once for each")
        found[contender] = agent
    return found
