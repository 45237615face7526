"""``kdmesh draw``: a mesh's topology as a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_mesh, planned
from kdmesh.errors import MeshError
from kdmesh.files import found_at

if TYPE_CHECKING:
    import argparse

    from kdmesh.graph.plan import Plan


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "draw",
        help="draw who teaches whom, in the terminal or as a picture",
        description="Draw a mesh: agents, consensus nodes and flows, by stage. Many equal agents are drawn as one. "
        "FILE may also be a run's folder, whose models' sizes are known.",
    )
    add_mesh(command)
    command.add_argument(
        "--format",
        choices=("terminal", "svg", "png", "mermaid", "dot"),
        help="by default what the ending of PATH says, else terminal; png needs `pip install 'kdmesh[draw]'`",
    )
    command.add_argument("-o", "--output", metavar="PATH", help="write it to this file")
    command.add_argument("--graphviz", action="store_true", help="let Graphviz lay out an SVG, as it does a PNG")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print the drawing, or write it to a file."""
    from kdmesh.report.drawing import formats

    path = None if args.output is None else Path(args.output)
    form = args.format or ("terminal" if path is None else formats.format_of(path))
    if form == "png" and path is None:
        raise MeshError("a PNG is not a text", where="--format png", instead="-o PATH.png")
    if args.graphviz:
        formats.refuse_layout(form, "--graphviz")
    plan, parameters = _plan(args)
    if form == "terminal" and path is None:
        _show(plan, parameters)
        return 0
    drawing = formats.draw(plan, form, graphviz=args.graphviz, parameters=parameters)
    if path is None:
        print(drawing, end="")
    else:
        formats.save(path, drawing)
        print(path)
    return 0


def _plan(args: argparse.Namespace) -> tuple[Plan, dict[str, int]]:
    """The plan of a mesh, or of a run's folder with its models' numbers of parameters."""
    if found_at(args.file) != "folder":
        return planned(args), {}
    from kdmesh.cli.common import read
    from kdmesh.contracts.run_files import RESOLVED
    from kdmesh.graph.planner import make_plan
    from kdmesh.plugins import registry
    from kdmesh.report import run_folder

    run = run_folder.read(args.file)
    found = [one.path / RESOLVED for one in (run, *run.runs.values()) if (one.path / RESOLVED).is_file()]
    if not found:
        raise MeshError(f"has no {RESOLVED} yet", file=args.file, instead="the mesh's own file")
    args.file = str(found[0])
    agents = next(iter(run.summaries), {}).get("agents")
    rows = agents.items() if isinstance(agents, dict) else ()
    sizes = {name: row.get("parameters") for name, row in rows if isinstance(row, dict)}
    return make_plan(read(args), registry()), {name: size for name, size in sizes.items() if isinstance(size, int)}


def _show(plan: Plan, parameters: dict[str, int]) -> None:
    """Print to the terminal: in colour if it has any and wants it, in ASCII where it has no other characters."""
    from rich.console import Console

    from kdmesh.report import layout
    from kdmesh.report.drawing.scene import scene
    from kdmesh.report.drawing.terminal import terminal

    ascii = not (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    text = terminal(scene(plan, parameters), layout.terminal_width(), ascii)
    Console(file=sys.stdout).print(text, soft_wrap=True, end="")
