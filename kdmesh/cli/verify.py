"""``kdmesh verify``: prove that a run's files are those that it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.output import say

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = "Compare a run's models, results and answers with the sums that it kept, and name each file that differs."
    command = commands.add_parser("verify", help="whether a run's files are those that it wrote", description=about)
    command.add_argument("run", metavar="DIR", help="the folder of a run that has finished")
    command.add_argument(
        "--sum", metavar="SHA256", help="what `kdmesh verify` said when the run was new: that the sums themselves stand"
    )
    command.set_defaults(execute=execute)


def _forgotten(root: Path) -> None:
    """Say what was taken out of the run since it was written."""
    from kdmesh.engine.forgetting.removing import told

    for one in told(root):
        count, before = one.get("samples", 0), one.get("sums_before")
        since = f"; until then its sums had the sum {before}" if before else ""
        say(f"{count:,} {'sample was' if count == 1 else 'samples were'} forgotten on {one.get('time', '?')}{since}")


def _expired(root: Path) -> None:
    """Say what was deleted at the end of its term."""
    from kdmesh.engine.retention import told

    for one in told(root):
        say(f"at the end of its term, on {one.get('time', '?')}, went {', '.join(map(str, one.get('expired', ())))}")


def execute(args: argparse.Namespace) -> int:
    """Name what is wrong; exit code 1 where anything is."""
    from kdmesh.contracts.run_files import SUMS
    from kdmesh.engine.verifying import verify
    from kdmesh.files import sha256

    root = Path(args.run)
    found = verify(root)
    _forgotten(root)
    _expired(root)
    of_sums = sha256(root / SUMS)
    if args.sum is not None and args.sum.strip().lower() != of_sums:
        found.faults.insert(0, f"{SUMS} is not the one whose sum was given: it has {of_sums}")
    for line in found.faults:
        say(line)
    if found.unsummed:
        say(f"no sum covers: {', '.join(found.unsummed)}")
    if found.faults:
        count = len(found.faults)
        say(f"{count:,} {'fault' if count == 1 else 'faults'}; {len(found.known):,} files have sums")
        return 1
    say(f"{len(found.known):,} files are as they were written")
    if args.sum is None:
        say(f"keep this apart from the folder, for --sum: {of_sums}")
    return 0
