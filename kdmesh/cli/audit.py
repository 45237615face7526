"""``kdmesh audit RUN``: what a run's agents tell of the samples that it learned from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import use_plugins_dir
from kdmesh.cli.output import complain, say

if TYPE_CHECKING:
    import argparse

    from kdmesh.inference.auditing import Audit


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Tell by the loss of a run's agents which samples they have learned, and of students also which their teachers "
        "have: how well that goes, against test samples, which nobody learned. It attacks a copy, and changes nothing."
    )
    command = commands.add_parser("audit", help="what agents tell of the samples they learned", description=about)
    command.add_argument("run", metavar="RUN", help="the folder of a finished run, of one seed")
    command.add_argument(
        "--rate", metavar="P", type=float, default=0.01, help="false positives that are allowed (default: 0.01)"
    )
    command.add_argument("--json", action="store_true", help="print all figures as JSON")
    command.add_argument("--plugins-dir", metavar="DIR", help="a folder of plugin files")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Audit and print."""
    use_plugins_dir(args)
    from kdmesh.contracts.run_files import RESOLVED
    from kdmesh.errors import MeshError
    from kdmesh.files import to_json
    from kdmesh.inference.auditing import audit
    from kdmesh.spec.read import read_mesh

    root = Path(args.run)
    if not (root / RESOLVED).is_file():
        raise MeshError(f"{root} is no folder of a run", where="RUN", instead="a folder with resolved.yaml")
    found = audit(root, read_mesh(root / RESOLVED), args.rate)
    if args.json:
        print(to_json(_plain(found), 1))
        return 0
    _print(found, args.rate)
    return 0


def _plain(found: Audit) -> dict[str, Any]:
    rows = []
    for one in found.found:
        told = one.membership
        rows.append(
            {
                "agent": one.agent, "learned_by": one.learned_by, "members": told.members, "others": told.others,
                "auc": told.auc, "auc_interval": told.auc_interval, "rate": told.rate, "found": told.found,
                "share": told.share, "interval": told.interval, "wrong": told.wrong, "least_rate": told.least,
                "accuracy": one.accuracy[0], "accuracy_others": one.accuracy[1],
            }
        )  # fmt: skip
    return {"membership": rows, "left_out": found.left}


def _print(found: Audit, rate: float) -> None:
    from kdmesh.report.grid import KEPT, Column, Grid
    from kdmesh.report.grid import show as print_table

    rows: list[dict[str, Any]] = []
    for one in found.found:
        told = one.membership
        rows.append(
            {
                "agent": one.agent, "of": "itself" if one.learned_by == one.agent else one.learned_by,
                "members": told.members, "auc": told.auc, "of_auc": _ends(told.auc_interval),
                "share": told.share, "of_share": _ends(told.interval),
                "accuracy": one.accuracy[0], "others": one.accuracy[1],
            }
        )  # fmt: skip
    columns = [
        Column("agent", "agent", spare=KEPT),
        Column("learned by", "of", spare=KEPT),
        Column("members", "members", "{:,}".format, 2),
        Column("area", "auc", "{:.3f}".format),
        Column("of 95%", "of_auc", spare=1),
        Column(f"found at {rate:.2g}", "share", "{:.3f}".format),
        Column("of 95%", "of_share", spare=1),
        Column("right, members", "accuracy", "{:.3f}".format, 3),
        Column("right, others", "others", "{:.3f}".format, 3),
    ]
    if rows:
        print_table(sys.stdout, Grid("Members told by their loss", columns, rows))
        others, least = found.found[0].membership.others, found.found[0].membership.least
        say(
            f"Of {others:,} others at most a share of {rate:.2g} is taken for members; so many show no rate below "
            f"{least:.2g}. Intervals of 95%. By guessing the area under the curve is 0.5, and {rate:.2g} is found."
        )
        say(
            "This is one attack, by the loss alone: a better one may find more, and where it finds nothing that does "
            "not show that there is nothing."
        )
    for name, why in found.left.items():
        complain(f"kdmesh: note: {name} is left out: {why}")


def _ends(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"
