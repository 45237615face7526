"""What `run` and `resume` share of parties in processes of their own: options, and the wait until they have joined."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, printable

if TYPE_CHECKING:
    import argparse

    from kdmesh.engine.request import Request

ADDRESS = "127.0.0.1:7400"


def add_joining(command: argparse.ArgumentParser) -> None:
    """Add where remote parties join."""
    command.add_argument(
        "--listen", metavar="HOST:PORT", help=f"of remote parties: where they join (default: {ADDRESS})"
    )
    command.add_argument(
        "--tls", metavar="DIR", help="of remote parties: folder with ca.pem, cert.pem and key.pem of this coordinator"
    )


def refuse_joining(args: argparse.Namespace, instead: str) -> None:
    """Refuse options of remote parties where there are none."""
    for name in ("listen", "tls"):
        if getattr(args, name) is not None:
            raise MeshError("no party joins this run", where=f"--{name}", instead=instead)


def coordinate(request: Request, args: argparse.Namespace) -> int:
    """Train with parties that join."""
    from kdmesh.backends.parties import PartiesBackend
    from kdmesh.cli.running import launch
    from kdmesh.parties.coordinating import coordinated
    from kdmesh.parties.service import Certificates

    if request.privacy is not None:
        what = "the accounts of parties are with them, and with nobody else"
        raise MeshError(what, where="--privacy", instead="kdmesh party --privacy FOLDER, at each party")
    beside = {"--backend": args.backend, "--ray-address": args.ray_address, "--controls": request.controls or None}
    for name, given in beside.items():
        if given is not None:
            raise MeshError("each party is a process of its own", where=name, instead="leave it out")
    if args.tls is None:
        what = "parties and their coordinator prove who they are by certificates"
        raise MeshError(what, where="--tls", instead="--tls DIR, with ca.pem, cert.pem and key.pem")
    patience = args.progress_timeout or float("inf")

    def say(text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    address, certificates = args.listen or ADDRESS, Certificates.read(Path(args.tls))
    with coordinated(request.spec, address, certificates, patience, say) as meeting:
        hosted = PartiesBackend(meeting)
        return launch(replace(request, backend=None, hosted=hosted, sizes=meeting.sizes()), args.quiet, args.measure)
