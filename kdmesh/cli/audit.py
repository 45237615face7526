"""``kdmesh audit RUN``: what a run's agents tell of the samples that it learned from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import use_plugins_dir
from kdmesh.cli.output import complain, say

if TYPE_CHECKING:
    import argparse

    from kdmesh.spec import MeshSpec
    from kdmesh.streams.table import Table


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Attack the agents of a finished run: tell by their losses which samples they have learned, and of students "
        "also which their teachers have; ask them for the canaries that the mesh planted; search what language models "
        "write for texts that were learned. It adds audit.json and a part of the agents' cards, and says how much so "
        "many samples can show."
    )
    command = commands.add_parser("audit", help="what agents tell of the samples they learned", description=about)
    command.add_argument("run", metavar="RUN", help="the folder of a finished run, of one seed")
    command.add_argument(
        "--rate", metavar="P", type=float, default=0.01, help="false positives that are allowed (default: 0.01)"
    )
    reference = "compare losses with those of this agent, or agent's folder, which did not learn these samples"
    command.add_argument("--reference", metavar="AGENT", help=reference)
    command.add_argument(
        "--candidates",
        metavar="N",
        type=int,
        default=255,
        help="what each canary is compared with (default: 255)",
    )
    command.add_argument(
        "--delta", metavar="D", type=float, default=0.0, help="of the lower bound on epsilon (default: 0)"
    )
    command.add_argument(
        "--draws", metavar="N", type=int, default=16, help="tries by chance to have a secret said (default: 16)"
    )
    command.add_argument(
        "--spans", metavar="N", type=int, default=32, help="texts whose beginnings a model goes on with (default: 32)"
    )
    more = "train K shadow runs of the mesh on halves of the samples, and tell members by likelihood ratios"
    command.add_argument("--shadows", metavar="K", type=int, default=0, help=more)
    command.add_argument("--json", action="store_true", help="print all figures as JSON")
    command.add_argument("--plugins-dir", metavar="DIR", help="a folder of plugin files")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Audit, print and keep."""
    use_plugins_dir(args)
    from kdmesh.contracts.run_files import AUDITED, RESOLVED, SIGNATURE
    from kdmesh.errors import MeshError
    from kdmesh.files import to_json, write_json
    from kdmesh.inference.auditing.audit import Settings, audit
    from kdmesh.report.audited import lines_of, tables_of
    from kdmesh.report.grid import show as print_table
    from kdmesh.spec.read import read_mesh

    root = Path(args.run)
    if not (root / RESOLVED).is_file():
        raise MeshError(f"{root} is no folder of a run", where="RUN", instead="a folder with resolved.yaml")
    if any((one / SIGNATURE).exists() for one in (root, *root.resolve().parents[:2])):
        what = f"{root} is signed, and an audit adds to it"
        raise MeshError(what, where="RUN", instead=f"a copy without {SIGNATURE}, which is signed once it is audited")
    settings = Settings(args.rate, args.reference, args.candidates, args.delta, args.draws, args.spans, args.shadows)
    found = audit(root, read_mesh(root / RESOLVED), settings, lambda line: complain(f"kdmesh: {line}"), _train)
    made = found.plain()
    write_json(root / AUDITED, made)
    _on_cards(root, made)
    if args.json:
        print(to_json(made, 1))
        return 0
    print_table(sys.stdout, *tables_of(made))
    for line in lines_of(made):
        say(line)
    say(f"It stands in {AUDITED} and on the agents' cards; `kdmesh report` puts it into the run's page.")
    for name, why in found.left.items():
        complain(f"kdmesh: note: {name} is left out: {why}")
    return 0


def _train(spec: MeshSpec, table: Table, out: Path) -> Path:
    """Train a shadow run, in this process."""
    from kdmesh.engine.experiment import Experiment
    from kdmesh.engine.request import Request

    folder = Experiment(Request(spec, "inline", None, out, table=table, store="off")).run().folder
    assert folder is not None
    return folder.root


def _on_cards(root: Path, found: dict[str, Any]) -> None:
    """Write it on the cards of agents too, and keep their sums; a card that is not as the run wrote it stays."""
    from kdmesh.contracts.run_files import SEEDS, SUMS
    from kdmesh.engine import sums
    from kdmesh.files import read, sha256, write
    from kdmesh.report.audited import on_card

    known, changed = sums.told(root), []
    for agent in dict.fromkeys(one["agent"] for part in ("membership", "canaries") for one in found[part]):
        name = f"agents/{agent}/README.md"
        if (root / name).is_file() and known.get(name) == sha256(root / name):
            write(root / name, on_card(read(root / name), found, agent))
            changed.append(name)
        else:
            complain(f"kdmesh: note: {name} is not as the run wrote it, and is left as it is")
    if not changed:
        return
    sums.keep(root, changed)
    whole = root.resolve().parent.parent
    if root.resolve().parent.name == SEEDS and (part := f"{SEEDS}/{root.resolve().name}/{SUMS}") in sums.told(whole):
        sums.keep(whole, [part])
        root = whole
    complain(f"kdmesh: note: cards have other sums now; for kdmesh verify --sum:\n  {sha256(root / SUMS)}")
