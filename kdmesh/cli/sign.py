"""``kdmesh sign``: a signature over a folder's files, by a key of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.output import say

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Sign the files of a folder with a private key, offline; `kdmesh verify DIR --key PUBLIC` then names every "
        "file that was changed, taken away or added."
    )
    command = commands.add_parser("sign", help="sign a run's files with a key", description=about)
    command.add_argument("run", metavar="DIR", help="the folder of a run that has finished, or of an agent")
    command.add_argument("--key", metavar="FILE", required=True, help="a private key of an elliptic curve, PEM")
    command.add_argument("--password-env", metavar="NAME", help="the environment variable that holds its password")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Sign and say where."""
    from kdmesh.provenance.signing import password_of, sign

    say(f"signed: {sign(Path(args.run), Path(args.key), password_of(args.password_env))}")
    return 0
