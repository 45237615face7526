"""``kdmesh party``: take part in a mesh with samples and agents of one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kdmesh.cli.common import add_mesh, add_no_code, add_privacy, add_traceback, allow_code, read, understood

DECLINE = "decline"
"""A file in the folder of a party that takes no part as long as the file is there."""


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
    command.add_argument(
        "--decline",
        metavar="ROUNDS",
        type=rounds,
        default=frozenset(),
        help="rounds in which it takes no part, as in 2,4-6: of a mesh with `participation`",
    )
    add_privacy(command, "a party")
    add_traceback(command)
    command.set_defaults(execute=execute)


def rounds(text: str) -> frozenset[int]:
    """Read numbers of rounds, and ranges of them; argparse puts this function's name into its message."""
    found = set[int]()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"{part!r} is no round: 3, or 4-6")
        found |= {*range(int(first), int(last or first) + 1)}
    return frozenset(found)


def execute(args: argparse.Namespace) -> int:
    """Take part until the coordinator says that the run is over."""
    spec = read(args)
    understood(spec)
    allow_code(spec, args)
    from kdmesh.errors import MeshError, RunFailed, printable
    from kdmesh.files import inside
    from kdmesh.parties.member import Member
    from kdmesh.parties.service import Certificates, take_part

    certificates = Certificates.read(Path(args.tls))

    def say(text: str) -> None:
        print(printable(f"{args.party}: {text}"), file=sys.stderr, flush=True)

    if args.decline and spec.participation is None:
        what = "all parties take part in all rounds of this mesh"
        raise MeshError(what, where="--decline", instead="participation: {quorum: ...} in the mesh, or leave it out")
    folder = inside(Path(args.out), args.party)
    privacy = None if args.privacy is None else Path(args.privacy)

    def declines(number: int) -> bool:
        return number in args.decline or (folder / DECLINE).exists()

    member = Member(spec, args.party, folder, say, declines, privacy)
    take_part(member, args.join, certificates, args.patience)
    if member.failed:
        what = f"the coordinator could not end the run; agents, as far as there are any, are in {member.folder}"
        raise RunFailed(what, where="--join", instead="see what the coordinator says")
    print(printable(f"{args.party}: the run is over; its agents are in {member.folder}"), file=sys.stderr)
    return 0
