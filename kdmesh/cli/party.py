"""``kdmesh party``: take part in a mesh with samples and agents of one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kdmesh.cli.common import add_mesh, add_no_code, add_traceback, allow_code, read, understood


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "party",
        help="take part in a mesh with samples and agents of one's own",
        description="Join the coordinator of a mesh as one of its parties, train its agents on its own samples, and "
        "answer what the coordinator asks: only what the file declares leaves this process.",
    )
    add_mesh(command)
    add_no_code(command)
    command.add_argument("--as", dest="party", metavar="NAME", required=True, help="which of its parties this is")
    command.add_argument("--join", metavar="HOST:PORT", required=True, help="where the coordinator listens")
    command.add_argument(
        "--tls", metavar="DIR", required=True, help="folder with ca.pem, cert.pem (in the party's name) and key.pem"
    )
    command.add_argument(
        "--out", metavar="DIR", default="party", help="its agents, and what has left it (default: %(default)s/NAME)"
    )
    command.add_argument(
        "--patience",
        metavar="SECONDS",
        type=float,
        default=600.0,
        help="how long to look for a coordinator that is not there (default: %(default)g)",
    )
    add_traceback(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Take part until the coordinator says that the run is over."""
    spec = read(args)
    understood(spec)
    allow_code(spec, args)
    from kdmesh.errors import RunFailed, printable
    from kdmesh.files import inside
    from kdmesh.parties.member import Member
    from kdmesh.parties.service import Certificates, take_part

    certificates = Certificates.read(Path(args.tls))

    def say(text: str) -> None:
        print(printable(f"{args.party}: {text}"), file=sys.stderr, flush=True)

    member = Member(spec, args.party, inside(Path(args.out), args.party), say)
    take_part(member, args.join, certificates, args.patience)
    if member.failed:
        what = f"the coordinator could not end the run; agents, as far as there are any, are in {member.folder}"
        raise RunFailed(what, where="--join", instead="see what the coordinator says")
    print(printable(f"{args.party}: the run is over; its agents are in {member.folder}"), file=sys.stderr)
    return 0
