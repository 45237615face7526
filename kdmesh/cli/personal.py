"""``kdmesh personal``: personal data in texts: what recognisers find in a file, keys, and logs of runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.output import say

if TYPE_CHECKING:
    import argparse

    from kdmesh.personal.measuring import Marked, Measured

FIRST = 20


def add(commands: Any) -> None:
    """Add the command."""
    about = "Personal data in texts: what recognisers find in a file, the key of pseudonyms, and the log of a run."
    command = commands.add_parser("personal", help="what personal data recognisers find in texts", description=about)
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    scanning = _action(actions, "scan", "count what recognisers find in the texts of a file", scan)
    scanning.add_argument("file", metavar="FILE", help=".csv, .tsv, .jsonl, .parquet; also plain ones in .gz")
    scanning.add_argument("--column", metavar="NAME", default="text", help="the column of texts (default: text)")
    scanning.add_argument(
        "--find",
        metavar="NAMES",
        default="",
        help="recognisers, with commas between, email,phone; or as a mesh has them, [email, {words: {path: FILE}}]",
    )
    scanning.add_argument("--profile", metavar="NAME", help="those of a list: hipaa or gdpr (default: hipaa)")
    scanning.add_argument(
        "--marked", metavar="NAME", help="a column in which personal data is marked, "
        "[{start: 0, end: 3, label: PERSON}]: how much of it is found, by label"
    )  # fmt: skip
    making = _action(actions, "key", "make a key, in a new file that only you can read", key)
    making.add_argument("file", metavar="FILE", help="the new file; name it in KDMESH_PERSONAL_KEY")
    checking = _action(actions, "verify", "prove that the log of a run is as it was written", verify)
    checking.add_argument("run", metavar="RUN", help="the folder of a run; its key is KDMESH_PERSONAL_KEY")


def _action(actions: Any, name: str, about: str, call: Any) -> argparse.ArgumentParser:
    description = f"{about[0].upper()}{about[1:]}."
    action: argparse.ArgumentParser = actions.add_parser(name, help=about, description=description)
    action.set_defaults(execute=execute, action=call)
    return action


def execute(args: argparse.Namespace) -> int:
    """Do what is asked for."""
    return int(args.action(args))


def scan(args: argparse.Namespace) -> int:
    """Print what recognisers find, and of marked texts how much of that is right."""
    from pydantic import ValidationError

    from kdmesh.errors import MeshError
    from kdmesh.personal.measuring import Measured
    from kdmesh.spec.personal import PersonalSpec
    from kdmesh.spec.yaml12 import load
    from kdmesh.streams.texts import AT_ONCE
    from kdmesh.tables.reading import read_rows
    from kdmesh.tables.rows import has_columns
    from kdmesh.tables.samples import Columns, samples_of
    from kdmesh.text.recognised import finder

    find = load(args.find) if args.find[:1] in ("[", "{") else [name for name in args.find.split(",") if name]
    profile = args.profile or (None if find else "hipaa")
    try:
        spec = PersonalSpec.model_validate({"action": "redact", "profile": profile, "find": find})
    except ValidationError as error:
        what = error.errors()[0]["msg"].removeprefix("Value error, ")
        where = "--profile" if error.errors()[0]["loc"][:1] == ("profile",) else "--find"
        raise MeshError(what, where=where, instead="--find email,phone, or --profile hipaa") from None
    raw = [args.column, *([args.marked] if args.marked else [])]
    rows = read_rows(Path(args.file), "FILE", raw)
    has_columns(rows, *raw)
    samples = samples_of(rows, Columns(args.column, spans=args.marked))
    made, found = finder(spec.profile, spec.find, None, [], "--find"), Measured()
    for start in range(0, len(samples), AT_ONCE):
        part = samples[start : start + AT_ONCE]
        marked: list[tuple[Marked, ...]] = [one.spans or () for one in part]
        found.add(made.find([one.text for one in part]), marked)
    _print(found, len(samples), bool(args.marked))
    return 0


def _print(found: Measured, texts: int, marked: bool) -> None:
    from kdmesh.report.grid import KEPT, Column, Grid
    from kdmesh.report.grid import show as print_table

    share = "{:.1%}".format
    kinds: list[dict[str, Any]] = [
        {"kind": kind, "parts": count, "precision": found.right[kind] / count if marked else None}
        for kind, count in sorted(found.parts.items())
    ]
    title = f"Found in {texts:,} texts: {found.parts.total():,} parts that are personal"
    columns = [
        Column("kind", "kind", spare=KEPT),
        Column("parts", "parts", "{:,}".format),
        Column("precision", "precision", share),
    ]
    if kinds:
        print_table(sys.stdout, Grid(title, columns, kinds))
    else:
        say(title)
    if not marked:
        return
    marks: list[dict[str, Any]] = [
        {"label": label, "marked": count, "found": found.found[label], "recall": found.found[label] / count}
        for label, count in sorted(found.marked.items())
    ]
    columns = [
        Column("label", "label", spare=KEPT),
        Column("marked", "marked", "{:,}".format),
        Column("found", "found", "{:,}".format),
        Column("recall", "recall", share),
    ]
    if marks:
        print()
        print_table(sys.stdout, Grid("Of what is marked, found at least in part", columns, marks))
    recall, precision = (None if one is None else share(one) for one in (found.recall, found.precision))
    say(f"recall {recall or 'not defined'}, precision {precision or 'not defined'}; of {found.clean:,} texts without a "
        f"mark {found.flagged:,} were flagged")  # fmt: skip


def key(args: argparse.Namespace) -> int:
    """Make a key."""
    from kdmesh.personal.key import VARIABLE
    from kdmesh.privacy.keys import create

    made = create(Path(args.file))
    say(f"the key {made.identity}: pseudonyms that it made can be made again with it alone, so keep it, and keep it "
        f"apart. {VARIABLE}={args.file}")  # fmt: skip
    return 0


def verify(args: argparse.Namespace) -> int:
    """Prove the log of a run."""
    from kdmesh.contracts.run_files import PERSONAL
    from kdmesh.personal.key import needed
    from kdmesh.personal.log import verify as proved
    from kdmesh.privacy.keys import load

    secret = load(needed("the log is signed with a key", "RUN"))
    count = proved(Path(args.run) / PERSONAL, secret)
    say(f"{count:,} lines, as they were written, by the key {secret.identity}")
    return 0
