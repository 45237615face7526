"""``kdmesh compare``: paired trials of several meshes, and what they show."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import (
    add_no_code,
    add_plugins_dir,
    allow_code,
    beside,
    import_from,
    seconds,
    use_plugins_dir,
)
from kdmesh.cli.run import count
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    command.add_argument("--seeds", metavar="N", type=count, default=10, help="run seeds (default: %(default)s)")
    command.add_argument(
        "--splits", metavar="N", type=count, default=1, help="splits, each with every seed (default: %(default)s)"
    )
    command.add_argument("--no-controls", action="store_true", help="do not train students alone and by one teacher")
    command.add_argument(
        "--equal", metavar="D", type=float, help="differences within D do not matter, in the metric's unit"
    )
    command.add_argument("--each", action="store_true", help="compare every pair, not only with the first FILE")
    command.add_argument("--out", metavar="DIR", default="runs", help="parent folder (default: %(default)s)")
    command.add_argument("--workers", metavar="N", type=count, help="trials side by side (default: one per core)")
    command.add_argument(
        "--backend", choices=("inline", "ray"), default="inline", help="where each trial's models live"
    )
    command.add_argument("--ray-address", metavar="A", help="join this Ray cluster with every trial")
    command.add_argument("--checkpoint-seconds", metavar="S", type=seconds, default=60.0, help="as for run")
    command.add_argument("--progress-timeout", metavar="S", type=seconds, default=600.0, help="as for run")
    command.add_argument("--quiet", action="store_true", help="print only the result")
    add_plugins_dir(command)
    add_no_code(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Compare."""
    use_plugins_dir(args)
    from kdmesh.engine.collect import is_url

    if is_url(args.out):
        raise MeshError(f"found {args.out!r}", where="--out", instead="a folder: trials are made on this machine")
    from kdmesh.compare.contender import contenders
    from kdmesh.compare.finished import are_runs
    from kdmesh.plugins import registry

    registry().warn()
    if are_runs(args.files):
        return finished(args)
    folders = [beside(file) for file in args.files]
    made = contenders(args.files, args.variant, args.overrides, folders)
    for one in made:
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
        args.backend,
        workers=args.workers,
    )
    planned, steps = design(made, asked)
    root = begin(Path(args.out), planned)
    return make(root, args, steps)


def finished(args: argparse.Namespace) -> int:
    """Show the tables of runs that are there already; nothing is trained or written."""
    from kdmesh.compare.analysis import analyse
    from kdmesh.compare.finished import of_runs

    wrong = {"--variant": args.variant, "--set": args.overrides, "--splits": args.splits > 1}
    if given := [name for name, value in wrong.items() if value]:
        raise MeshError("runs are compared as they are", where=given[0], instead="mesh files, which are trained")
    design, summaries, scores = of_runs(args.files, _agents(args.agent), args.equal, "each" if args.each else "first")
    show(analyse(design, summaries, scores=scores))
    return 0


def resume(root: Path, args: argparse.Namespace) -> int:
    """Go on with a comparison, for ``kdmesh resume``."""
    from kdmesh.compare.design import DESIGN, read
    from kdmesh.spec.read import parse

    made = read(root)
    for entry in made.contenders.values() if made is not None else ():
        allow_code(parse(entry.mesh, file=str(root / DESIGN)), args)
    return make(root, args)


def make(root: Path, args: argparse.Namespace, steps: Mapping[str, int] | None = None) -> int:
    """Make what lacks of a comparison, and show its tables."""
    from kdmesh.compare.comparison import TABLE, Comparison
    from kdmesh.errors import RunFailed
    from kdmesh.files import read_json
    from kdmesh.report.many import listener

    comparison = Comparison(
        root,
        None,
        args.ray_address,
        args.checkpoint_seconds,
        args.progress_timeout,
    )
    shown = listener(sys.stderr, args.quiet)
    try:
        comparison.run(shown, steps)
    except RunFailed:
        show(read_json(root / TABLE) or {}, root)
        raise
    finally:
        shown.close()
    show(read_json(root / TABLE) or {}, root)
    return 0


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
