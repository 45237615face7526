"""``kdmesh plan``: show what a mesh will do, before anything trains."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_mesh, planned

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "plan", help="show stages, steps and choices", description="Plan a mesh; train nothing."
    )
    add_mesh(command)
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the plan as JSON")
    form.add_argument("--expand", action="store_true", help="the long form as YAML, itself a valid mesh")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print the plan."""
    plan = planned(args)
    if args.expand:
        from kdmesh.spec.yaml12 import dump

        print(dump(plan.spec.dump()), end="")
        return 0
    from kdmesh.checks import licences
    from kdmesh.graph.unkept import unkept
    from kdmesh.plugins import registry
    from kdmesh.report import layout
    from kdmesh.report.licences import judged
    from kdmesh.report.plan_text import plan_json, plan_text

    if args.json:
        print(json.dumps(plan_json(plan), indent=2))
        return 0
    width = layout.terminal_width()
    print(plan_text(plan, width=width))
    found = licences.examine(plan)
    lines = ["", *judged(found.asked, found.where, found.own, width)] if found.asked else []
    lines += [f"note: {text}" for text in (*found.notes, *found.marks)]
    print("".join(f"{part}\n" for line in lines for part in layout.wrap(line, width, "  ")), end="")
    if os.environ.get("KDMESH_STORE") != "off":  # whose constants come with torch
        for name, one in unkept(plan, registry()).items():
            print("\n".join(layout.wrap(one.told(name), width, "  ")))
    return 0
