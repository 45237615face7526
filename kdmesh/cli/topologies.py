"""``kdmesh topologies``: the bundled meshes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kdmesh.report import layout

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = "List the bundled meshes; each runs by its name, as in `kdmesh run ensemble`."
    command = commands.add_parser("topologies", help="list the bundled meshes", description=about)
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print name and description of each."""
    from kdmesh.spec.read import bundled, read_text
    from kdmesh.spec.yaml12 import load

    about = {name: load(read_text(path), file=str(path)).get("description", "") for name, path in bundled().items()}
    if args.json:
        print(json.dumps([{"name": name, "description": text} for name, text in about.items()], indent=2))
    else:
        print("\n".join(layout.table(list(about.items()), layout.terminal_width())))
    return 0
