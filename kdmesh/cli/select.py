"""``kdmesh select``: a small training set, chosen by what teachers say; see docs/data.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_mesh, add_no_code, add_traceback, allow_code, planned
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = "Choose a small training set by what teachers say of each sample, for a stream of later meshes."
    command = commands.add_parser("select", help="choose a small training set by what teachers say", description=about)
    add_mesh(command)
    by = "disagreement, teachability, loss, diversity, or random; with settings 'teachability: {k: 5}' (repeatable)"
    command.add_argument("--by", metavar="NAME", action="append", required=True, help=by)
    command.add_argument("--keep", metavar="N", required=True, help="how many samples, 200, or which share, 0.1")
    command.add_argument("--agents", metavar="A,B", help="the teachers (default: the frozen agents)")
    command.add_argument("--student", metavar="AGENT", help="whose loss, or likely answers, count")
    command.add_argument("--stream", metavar="NAME", default="train", help="what is chosen from (default: %(default)s)")
    command.add_argument("--seed", metavar="N", type=int, default=0, help="of what is drawn (default: %(default)s)")
    command.add_argument("--no-stratify", action="store_true", help="classes need not keep their shares")
    command.add_argument("--out", metavar="FILE", default="selection.json", help="where to (default: %(default)s)")
    command.add_argument("--store", metavar="DIR", help="the store of answers: a folder, a URL, or off")
    add_no_code(command)
    add_traceback(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Choose, write and say what was chosen."""
    from kdmesh.spec.yaml12 import load

    by: dict[str, dict[str, Any]] = {}
    for text in args.by:
        told = load(text, file="--by") if ":" in text else {name.strip(): {} for name in text.split(",")}
        if not isinstance(told, dict) or not all(isinstance(one, dict) for one in told.values()):
            raise MeshError(f"found {text!r}", where="--by", instead="a name, or 'teachability: {k: 5}'")
        by |= told
    keep = _share(args.keep)
    plan = planned(args)
    allow_code(plan.spec, args)
    from kdmesh.report import layout
    from kdmesh.selection.select import select, write_selection

    chosen, record = select(
        plan, by, keep, teachers=args.agents.split(",") if args.agents else (), student=args.student,
        stream=args.stream, seed=args.seed, stratify=not args.no_stratify, store=args.store,
    )  # fmt: skip
    write_selection(Path(args.out), record)
    width = layout.terminal_width()
    whole = record["streams"][args.stream]
    lines = [
        f"{len(chosen.ids):,} of {whole:,} samples of {args.stream}, by {', '.join(by)}: {args.out}",
        f"streams: {{core: {{of: {args.stream}, select: {args.out}}}}} has them in a later mesh",
    ]
    print("\n".join(part for line in lines for part in layout.wrap(line, width, "  ")))
    return 0


def _share(text: str) -> float:
    """How many, as a whole number, or which share."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise MeshError(f"found {text!r}", where="--keep", instead="a number of samples, or a share as 0.1") from None
