"""``kdmesh sweep``: search settings by validation, then test what was chosen."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import (
    add_mesh,
    allow_code,
    beside,
    import_from,
    use_plugins_dir,
)
from kdmesh.cli.run import count, seeds
from kdmesh.cli.trials import BEFORE, add_trials, advised, made, more, refuse_url
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Train a mesh with many settings, choose by validation alone, and test what was chosen with fresh seeds. "
        "Controls are searched with as many trials. `kdmesh resume DIR` goes on with an interrupted sweep."
    )
    command = commands.add_parser("sweep", help="search settings by validation, then test", description=about)
    add_mesh(command)
    command.add_argument(
        "--over",
        metavar="PATH=VALUES",
        action="append",
        default=[],
        help="what is searched: PATH=1,2,4, PATH=1..8 or PATH=log:1e-4..1e-1 (repeatable); by default as a grid",
    )
    command.add_argument("--random", metavar="N", type=count, help="N random points instead of the grid")
    command.add_argument("--sampler", metavar="NAME", help="who proposes points; see kdmesh plugins --kind sampler")
    command.add_argument("--points", metavar="N", type=count, help="how many a --sampler proposes (default: 20)")
    command.add_argument(
        "--halving",
        metavar="N",
        nargs="?",
        type=count,
        const=3,
        default=0,
        help="train all points briefly, one in N of them N times as long, and so on (default: 3)",
    )
    command.add_argument(
        "--search-seeds", metavar="N", type=seeds, default=1, help="seeds of each point (default: %(default)s)"
    )
    command.add_argument(
        "--seeds", metavar="N", type=seeds, default=10, help="fresh seeds of what is tested (default: %(default)s)"
    )
    command.add_argument("--agent", metavar="AGENT", default="", help="who counts; by default the one student")
    command.add_argument("--no-controls", action="store_true", help="leave out the student alone and by one teacher")
    add_trials(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Search."""
    use_plugins_dir(args)
    refuse_url(args)
    with advised(BEFORE):
        from kdmesh.plugins import registry
        from kdmesh.spec.read import read_mesh

        registry().warn()
        folders = beside(args.file)
        allow_code(read_mesh(args.file, args.overrides), args)
        import_from(folders)
        from kdmesh.sweep.start import Asked, begin, design

        sampler, points = _proposing(args)
        asked = Asked(
            args.file,
            args.over,
            args.overrides,
            folders,
            sampler,
            points,
            args.search_seeds,
            args.seeds,
            not args.no_controls,
            args.halving,
            args.equal,
            args.agent,
            args.workers,
            args.backend or "inline",
            not args.no_code,
            args.strict_signals,
            args.store,
        )
        planned, found = design(asked, _checking(args.quiet))
        root = begin(Path(args.out), planned)
    return make(root, args, found.steps)


def resume(root: Path, args: argparse.Namespace) -> int:
    """Go on with a sweep."""
    from kdmesh.sweep.design import read

    for flag, given in (("--backend", args.backend), ("--from-start", args.from_start), ("--store", args.store)):
        if given:
            raise MeshError("a sweep goes on as it was begun", where=flag, instead=f"kdmesh resume {root}")
    if (begun := read(root)) is not None:
        import_from(begun.beside)
    more(root, args)
    return make(root, args)


def make(root: Path, args: argparse.Namespace, steps: Mapping[str, int] | None = None) -> int:
    """Make what lacks of a sweep, and show its tables."""
    with advised(f"go on with: kdmesh resume {root}"):
        from kdmesh.sweep.result import TABLE
        from kdmesh.sweep.sweeping import Sweeping

        sweeping = Sweeping(
            root,
            getattr(args, "workers", None),
            args.ray_address,
            args.checkpoint_seconds,
            args.progress_timeout,
            not args.no_code,
            not args.no_report,
        )
        return made(sweeping, TABLE, args, show, steps)


def show(table: Mapping[str, Any], root: Path) -> None:
    """Print a sweep's tables, and where its folder is."""
    from kdmesh.report.grid import show as shown
    from kdmesh.report.sweep_table import sweep_tables

    if table:
        shown(sys.stdout, *sweep_tables(table))
    print(root)


def _proposing(args: argparse.Namespace) -> tuple[str, int | None]:
    """Who proposes points, and how many; None: all there are, or as many as usual."""
    if args.random is not None and (args.sampler or args.points):
        raise MeshError("says two things", where="--random", instead="--random N, or --sampler NAME --points N")
    if args.random is not None:
        return "random", args.random
    if args.points is not None and not args.sampler:
        raise MeshError("a grid has all its points", where="--points", instead="--random N, or --sampler NAME")
    return args.sampler or "grid", args.points


def _checking(quiet: bool) -> Any:
    """Tells how many points are checked, every few seconds."""
    from time import monotonic

    from kdmesh.report.live import EVERY

    last = monotonic()

    def said(done: int, total: int) -> None:
        nonlocal last
        if not quiet and monotonic() - last >= EVERY:
            last = monotonic()
            print(f"checked {done} of {total} points", file=sys.stderr, flush=True)

    return said
