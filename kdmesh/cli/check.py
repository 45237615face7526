"""``kdmesh check``: build every model without memory, and scan the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_mesh, add_no_code, add_traceback, allow_code, planned
from kdmesh.report import layout

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = "Plan a mesh, build its models without memory for taps and shapes, and scan its data."
    command = commands.add_parser("check", help="check models, shapes and data", description=about)
    add_mesh(command)
    add_no_code(command)
    add_traceback(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print what was checked, one line each."""
    plan = planned(args)
    allow_code(plan.spec, args)
    from kdmesh.engine.check import check  # imports torch: only for a mesh that can be planned

    width = layout.terminal_width()
    print("\n".join(part for line in check(plan) for part in layout.wrap(line, width, "  ")))
    return 0
