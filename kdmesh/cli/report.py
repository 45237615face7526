"""``kdmesh report``: a run as one page that opens from disk."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_measure, add_no_code, add_plugins_dir, import_from, use_plugins_dir, working_folder

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
    command.add_argument(
        "--no-samples",
        action="store_true",
        help="without pictures and texts of the data: for a page that is handed on",
    )
    add_measure(command, "first measure")
    add_no_code(command)
    add_plugins_dir(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Measure, if that is asked for; write the page, and say where."""
    use_plugins_dir(args)
    from kdmesh.cli.running import measure, write_page

    root, measured = Path(args.folder), True
    if args.measure:
        from kdmesh.engine.resume import begun

        beside = begun(root).get("beside")  # where code of the run may be
        import_from([*(beside if isinstance(beside, list) else ()), *working_folder()])
        out = sys.stdout
        with redirect_stdout(sys.stderr):
            measured = measure(out, root, quiet=False, code=not args.no_code)
    path = None if args.output is None else Path(args.output)
    print(write_page(root, path, interactive=not args.static, samples=not args.no_samples))
    return 0 if measured else 1
