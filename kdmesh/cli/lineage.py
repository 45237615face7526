"""``kdmesh lineage``: whence a run's models, also through the runs before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.output import say

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Say of a run's agents who taught them, what they began with and learned, and the same of the runs that these "
        "came from; whether what was taken from a run is still as it was is told by the sums of both."
    )
    command = commands.add_parser("lineage", help="whence a run's models, over runs", description=about)
    command.add_argument("run", metavar="DIR", help="the folder of a run")
    command.add_argument("--json", action="store_true", help="print nodes and edges as JSON")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print the graph."""
    from kdmesh.files import to_json
    from kdmesh.provenance.lineage import lineage, told
    from kdmesh.report import layout

    graph = lineage(Path(args.run))
    if args.json:
        print(to_json(graph, 1))
        return 0
    width = layout.terminal_width()
    for line in told(graph):
        for part in layout.wrap(line, width, "    "):
            say(part)
    return 0
