"""``kdmesh find-rate``: train an agent for a few updates while its learning rate rises, and show its loss."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any

from kdmesh.cli.common import add_asking, add_mesh, asked

ABOUT = (
    "A learning-rate range test (Smith, 2017): everything that an agent waits for is trained as the mesh says; then "
    "its rate rises by equal factors over a few updates, and its training loss is shown. Validation and test data say "
    "nothing about the rate, and no folder is written."
)


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("find-rate", help="look for a learning rate", description=ABOUT)
    add_mesh(command)
    command.add_argument("--agent", metavar="A", help="whose rate (default: the one that is trained last)")
    command.add_argument("--low", metavar="R", type=float, default=1e-6, help="the first rate (default: %(default)g)")
    command.add_argument("--high", metavar="R", type=float, default=1.0, help="the last rate (default: %(default)g)")
    command.add_argument(
        "--updates", metavar="N", type=int, default=100, help="updates from one to the other (default: %(default)s)"
    )
    add_asking(command, "all rates and losses")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Test."""
    spec = asked(args)
    from dataclasses import asdict

    from kdmesh.engine.rates import find_rate
    from kdmesh.engine.request import Request
    from kdmesh.files import to_json
    from kdmesh.hosts.memory import keep_memory
    from kdmesh.report import live, rates

    keep_memory()
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        request = Request(spec, "inline", store=args.store, listeners=(live.listener(sys.stderr, args.quiet),))
        found = find_rate(request, args.agent, args.low, args.high, args.updates)
    if args.json:
        print(to_json(asdict(found), 2), file=out)
        return 0
    optimizer = spec.agents[found.agent].train.over(spec.train).optimizer.name
    rates.show(out, found, optimizer)
    return 0
