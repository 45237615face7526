"""``kdmesh plugins``: what the built-ins and the installed plugins offer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import table

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = "List strategies, objectives, consensus rules, models, data sets and views."
    command = commands.add_parser("plugins", help="list what can be named in a mesh", description=about)
    command.add_argument(
        "--kind", metavar="KIND", help="only strategies, objectives, consensus, models, datasets or views"
    )
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print kind, name, summary and paper of each offer."""
    from kdmesh.errors import MeshError, nearest
    from kdmesh.plugins import KINDS, registry

    if args.kind not in (None, *KINDS):
        raise MeshError(f"unknown kind {args.kind!r}", where="--kind", instead=nearest(args.kind, KINDS, "kinds"))
    kinds = KINDS if args.kind is None else (args.kind,)
    offers = [offer for kind in kinds for offer in registry().offers(kind)]
    fields = ("kind", "name", "summary", "paper")
    if args.json:
        print(json.dumps([{field: getattr(offer, field) for field in fields} for offer in offers], indent=2))
    else:
        print(table([[getattr(offer, field) for field in fields] for offer in offers]))
    return 0
