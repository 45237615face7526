"""``kdmesh report``: a run as one page that opens from disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_plugins_dir, use_plugins_dir

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Write a run as one HTML file: verdicts, topology, curves, rounds, classes, costs, timeline, hashes and notes. "
        "Also of a comparison or a sweep. It loads nothing and needs no network. What it is of may be going on, or "
        "have failed."
    )
    command = commands.add_parser("report", help="write a run as one page that opens from disk", description=about)
    command.add_argument("folder", metavar="DIR", help="the folder of a run, comparison or sweep: runs/<name>/<time>")
    command.add_argument("-o", "--output", metavar="PATH", help="the file to write (default: report.html in DIR)")
    command.add_argument(
        "--static", action="store_true", help="without scripts: charts as plain drawings, and 0.9 MB less"
    )
    add_plugins_dir(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the page, and say where."""
    use_plugins_dir(args)
    from kdmesh.report.page.blocks import PAGE
    from kdmesh.report.page.facts import page_of
    from kdmesh.report.page.html import save

    path = Path(args.folder) / PAGE if args.output is None else Path(args.output)
    save(path, page_of(args.folder, at=path.parent), interactive=not args.static)
    print(path)
    return 0
