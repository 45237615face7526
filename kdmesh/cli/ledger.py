"""``kdmesh ledger``: what a party has spent of its privacy budget; see kdmesh/privacy/ledger.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_mesh, add_no_code
from kdmesh.cli.output import say

if TYPE_CHECKING:
    import argparse

    from kdmesh.privacy.ledger import Account
    from kdmesh.privacy.summary import Summary

OURS = "it is made of the private votes, so it is private itself: for this party alone, in no report"


def add(commands: Any) -> None:
    """Add the command."""
    about = "What a party's answers have cost: its privacy ledger, in which each answer is charged before it is given."
    command = commands.add_parser("ledger", help="what a party has spent of its privacy budget", description=about)
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    showing = _action(
        actions, "show", "print the account: mechanism by mechanism, and what is left of the budget", show
    )
    showing.add_argument("--json", action="store_true", help="as JSON")
    showing.add_argument(
        "--private", action="store_true", help=f"also epsilon in hindsight, by the data-dependent bound: {OURS}"
    )
    making = actions.add_parser(
        "new",
        help="make a party's account: a secret, and a ledger of its budget",
        description="Make the account of a party with a privacy budget, once and for all meshes: a secret, of which "
        "its noise is made, and a ledger. Whoever has the secret can take the noise away.",
    )
    add_mesh(making)
    making.add_argument(
        "--privacy", metavar="FOLDER", required=True, help="where they are put; without --as, into a folder for each"
    )
    making.add_argument(
        "--as", dest="party", metavar="NAME", help="which party; by default all with a budget, for a simulation"
    )
    add_no_code(making)
    making.set_defaults(execute=execute, action=new)
    checking = _action(
        actions, "verify", "prove that no line was changed, removed or moved, and none rolled back", verify
    )
    checking.add_argument(
        "--expect-head", metavar="HEX", default="", help="the head that was told with an answer, which must be in it"
    )


def _action(actions: Any, name: str, about: str, call: Any) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}."
    )
    action.add_argument("ledger", metavar="FILE", help="a party's ledger")
    action.set_defaults(execute=execute, action=call)
    return action


def execute(args: argparse.Namespace) -> int:
    """Do what is asked for."""
    return int(args.action(args))


def new(args: argparse.Namespace) -> int:
    """Make accounts."""
    from kdmesh.cli.common import planned
    from kdmesh.engine.accounts import create

    for made in create(planned(args), Path(args.privacy), args.party):
        budget = f"epsilon {made.budget.epsilon:g}, delta {made.budget.delta:g}"
        say(f"{made.party}: one {made.unit} ({made.adjacency}), {budget}, in {made.folder}")
    say("Keep these folders: with the secret, noise can be taken away; without it or the ledger, the budget is lost.")
    return 0


def show(args: argparse.Namespace) -> int:
    """Print the account."""
    from kdmesh.files import to_json
    from kdmesh.privacy.ledger import read
    from kdmesh.privacy.notes import private_epsilon
    from kdmesh.privacy.summary import summary

    account = read(Path(args.ledger))
    found = summary(account)
    hindsight = private_epsilon(account) if args.private else None
    if args.json:
        private = {} if hindsight is None else {"private": {"epsilon": hindsight[0], "charges": hindsight[1]}}
        print(to_json({**found, **private}, 2))
        return 0
    _print(found)
    if hindsight is not None:
        epsilon, known = hindsight
        say(f"PRIVATE: in hindsight epsilon {epsilon:.4f}, of votes of {known} of {found['charges']} charges; {OURS}")
    _torn(account)
    return 0


def _print(found: Summary) -> None:
    from kdmesh.privacy.summary import spent
    from kdmesh.report.accounts import table_of
    from kdmesh.report.grid import show as print_table

    table = table_of(found)
    if table.rows:
        print_table(sys.stdout, table)
    else:
        say(table.title)
    say(spent(found))
    charges = f"{found['charges']:,} {'charge' if found['charges'] == 1 else 'charges'}"
    say(f"{charges} of {found['answers']:,} {'answer' if found['answers'] == 1 else 'answers'}; head:")
    print(found["head"])


def verify(args: argparse.Namespace) -> int:
    """Prove the chain; what does not hold is refused in words."""
    from kdmesh.privacy.ledger import read

    account = read(Path(args.ledger), args.expect_head)
    count = len(account.lines)
    say(f"{count:,} {'charge' if count == 1 else 'charges'}, each bound to the line before it, and none rolled back:")
    print(account.head)
    _torn(account)
    return 0


def _torn(account: Account) -> None:
    if account.torn:
        say(f"The last {account.torn:,} bytes are no whole line: of a charge that was not answered. The party's next "
            "process cuts them off.")  # fmt: skip
