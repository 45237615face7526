"""``kdmesh label``: fill the store ahead of the runs that need it."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import (
    add_mesh,
    add_no_code,
    add_store,
    add_traceback,
    allow_code,
    read,
    understood,
)
from kdmesh.cli.run import count
from kdmesh.errors import printable

if TYPE_CHECKING:
    from kdmesh.engine.label import Labelled

ABOUT = (
    "Have frozen agents answer, ahead of any run, what runs of a mesh will ask of them, and keep it in the store. Then "
    "`kdmesh run FILE` trains with none of them loaded. What is there already is not computed again: after an "
    "interruption the same command goes on."
)


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("label", help="keep what teachers answer, ahead of runs", description=ABOUT)
    add_mesh(command)
    command.add_argument(
        "--agents",
        metavar="A,B",
        type=names,
        action="extend",
        default=[],
        help="frozen agents to ask (repeatable; default: all of which answers are kept)",
    )
    command.add_argument(
        "--actors", metavar="N", type=count,
        help="copies of an agent, each in a process of Ray (default: none, in this process)",
    )  # fmt: skip
    command.add_argument("--ray-address", metavar="A", help="join this Ray cluster; by default a local one is started")
    add_no_code(command)
    add_store(command)
    command.add_argument("--json", action="store_true", help="what was done as JSON")
    command.add_argument("--quiet", action="store_true", help="print only the result")
    add_traceback(command)
    command.set_defaults(execute=execute)


def names(text: str) -> list[str]:
    """Read names with commas between them; argparse puts this function's name into its message."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name")
    return found


def execute(args: argparse.Namespace) -> int:
    """Label."""
    spec = read(args)
    understood(spec)
    allow_code(spec, args)
    from kdmesh.engine.label import Asked, label
    from kdmesh.engine.stopping import terminable
    from kdmesh.hosts.memory import keep_memory
    from kdmesh.report.labelling import display

    keep_memory()
    out, shown = sys.stdout, display(sys.stderr, args.quiet)
    asked = Asked(spec, tuple(args.agents), args.store, args.actors, args.ray_address)
    try:
        with redirect_stdout(sys.stderr), terminable():
            done = label(asked, shown) if shown is not None else label(asked)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what was answered is kept; give the same command again to go on") from None
    finally:
        if shown is not None:
            shown.close()
    _print(out, done, args)
    return 0


def _print(out: Any, done: Labelled, args: argparse.Namespace) -> None:
    """Print what was done."""
    from kdmesh.files import to_json
    from kdmesh.report import layout
    from kdmesh.report.grid import show
    from kdmesh.report.labelling import table

    record = done.record()
    if args.json:
        print(to_json(record, 2), file=out)
        return
    show(out, table(record["agents"]))
    said = [f"not kept: {name}: {why}" for name, why in done.left.items()] + [f"note: {text}" for text in done.notes]
    for line in said:
        print("\n".join(layout.wrap(line, layout.terminal_width(out), "  ")), file=out)
    print(printable(f"in {done.store}, {done.seconds:.1f} s"), file=out)
