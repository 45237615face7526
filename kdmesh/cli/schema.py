"""``kdmesh schema``: the JSON Schema of a mesh file, for editors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = "Print the JSON Schema of a mesh file, with everything that the installed plugins offer."
    commands.add_parser("schema", help="print the file's JSON Schema", description=about).set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print the schema."""
    from kdmesh.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0
