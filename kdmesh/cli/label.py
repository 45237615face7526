"""``kdmesh label``: fill the store ahead of the runs that need it."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_asking, add_mesh, asked
from kdmesh.cli.run import count, seeds
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
    command.add_argument(
        "--seeds", metavar="N", type=seeds, default=1, help="for runs of so many seeds (default: %(default)s)"
    )
    add_asking(command, "what was done")
    command.set_defaults(execute=execute)


def names(text: str) -> list[str]:
    """Read names with commas between them; argparse puts this function's name into its message."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name")
    return found


def execute(args: argparse.Namespace) -> int:
    """Label."""
    spec = asked(args)
    from kdmesh.engine.label import Asked, label
    from kdmesh.engine.stopping import terminable
    from kdmesh.hosts.memory import keep_memory
    from kdmesh.report.labelling import display

    keep_memory()
    out, shown = sys.stdout, display(sys.stderr, args.quiet)
    parts = {
        seed: Asked(
            spec.model_copy(update={"seed": seed}), tuple(args.agents), args.store, args.actors, args.ray_address
        )
        for seed in range(spec.seed, spec.seed + args.seeds)
    }
    done: dict[int, Labelled] = {}
    try:
        with redirect_stdout(sys.stderr), terminable():
            for seed, what in parts.items():
                if shown is not None and len(parts) > 1:
                    print(f"seed {seed}", file=sys.stderr)
                done[seed] = label(what, shown) if shown is not None else label(what)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what was answered is kept; give the same command again to go on") from None
    finally:
        if shown is not None:
            shown.close()
    _print(out, done, args)
    return 0


def _print(out: Any, done: dict[int, Labelled], args: argparse.Namespace) -> None:
    """Print what was done, by seed."""
    from kdmesh.files import to_json

    records = {str(seed): one.record() for seed, one in done.items()}
    if args.json:
        print(to_json(records if len(records) > 1 else next(iter(records.values())), 2), file=out)
        return
    for seed, one in done.items():
        if len(done) > 1:
            print(f"seed {seed}", file=out)
        _table(out, one)


def _table(out: Any, done: Labelled) -> None:
    """Print what was done for a seed."""
    from kdmesh.report import layout
    from kdmesh.report.grid import show
    from kdmesh.report.labelling import table

    show(out, table(done.record()["agents"]))
    said = [f"not kept: {name}: {why}" for name, why in done.left.items()] + [f"note: {text}" for text in done.notes]
    for line in said:
        print("\n".join(layout.wrap(line, layout.terminal_width(out), "  ")), file=out)
    print(printable(f"in {done.store}, {done.seconds:.1f} s"), file=out)
