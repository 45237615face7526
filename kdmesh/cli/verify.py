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
    command.add_argument(
        "--key", metavar="FILE", help="a public key: whether the files are those that were signed with its private one"
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
    from kdmesh.provenance.lineage import other_version
    from kdmesh.provenance.signing import faults

    root = Path(args.run)
    if args.key is not None and not (root / SUMS).exists():  # an agent's folder, say: the signature alone covers it
        return _signed(faults(root, Path(args.key)))
    found = verify(root)
    _forgotten(root)
    _expired(root)
    found.faults += [why] if (why := other_version(root)) else []
    signed = [] if args.key is None else faults(root, Path(args.key))
    found.faults += [line for line in signed if line not in found.faults]
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
    say(f"{len(found.known):,} files are as they were written{', and signed' if args.key is not None else ''}")
    if args.sum is None:
        say(f"keep this apart from the folder, for --sum: {of_sums}")
    return 0


def _signed(faults: list[str]) -> int:
    for line in faults:
        say(line)
    say(
        f"{len(faults):,} {'fault' if len(faults) == 1 else 'faults'}"
        if faults
        else "the files are as they were signed"
    )
    return 1 if faults else 0
