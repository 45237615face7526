"""``kdmesh store audit``: what sparse and rounded answers cost, and what they do to a loss; see docs/store.md."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.report.grid import Grid
    from kdmesh.store import EntryInfo, Store
    from kdmesh.store.audit import Audit

SMALL = 5e-5  # of a dense loss: below it, parts of it say nothing
STUDENTS = {"half": "halfway from the average answer to each", "prior": "the average answer"}


def add(action: argparse.ArgumentParser) -> None:
    """Add what the action takes."""
    action.add_argument(
        "key", nargs="*", metavar="KEY", help="entries: the first digits of their digests (default: all)"
    )
    action.add_argument("--json", action="store_true", help="as JSON")


def audit(args: argparse.Namespace, store: Store, who: Callable[[EntryInfo], str | None]) -> int:
    """Measure and print; ``who``: how an entry is called."""
    from kdmesh.files import to_json
    from kdmesh.report.grid import show as print_table
    from kdmesh.report.layout import terminal_width, wrap
    from kdmesh.store.audit import audits

    chosen = [store.find(key) for key in args.key] or [*store.entries()]
    found = []
    for one in audits(store, chosen):
        found.append(one)
        if not args.json:
            print("\n".join(wrap(_about(one, who(one.info)), terminal_width(), "  ")))
            if one.figures:
                print_table(sys.stdout, _table(one))
            if any(figures["loss"] < SMALL for figures in one.figures.values()):
                said = "a dense loss of 0.0000 has no parts to tell: these answers are almost the same for all samples"
                print("\n".join(wrap(said, terminal_width(), "  ")))
            print()
    if args.json:
        print(to_json([one.record() for one in found], 2))
    elif found:
        told = "; ".join(f"{name}: {what}" for name, what in STUDENTS.items())
        said = (
            "error, +-: of the forward KL, and its standard error; of a row: the mean size of a row's own error; all "
            "in parts of the dense loss. cosine: of all gradients at the student's logits with the dense ones; bias: "
            f"of their mean, in parts of a row's gradient. Students that stand in: {told}."
        )
        print("\n".join(wrap(said, terminal_width(), "  ")))
    for note in store.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    if not found:
        raise MeshError(
            "no entry here is sparse or rounded: all answers are kept as they were computed",
            where="KEY" if args.key else "",
            file=store.place,
            instead="entries of signals such as top_k or sampled, or in a form other than exact",
        )
    return 0


def _about(one: Audit, who: str | None) -> str:
    """What an entry is, in a sentence."""
    tail = (
        "" if one.tail is None else f", {one.tail:.2%} of the mass {'drawn' if one.kind == 'sampled' else 'in tails'}"
    )
    measured = (
        f"{one.rows:,} rows measured against {one.against[:12]}"
        if one.against
        else "not measured: no dense answers of the same producer to the same samples are here, as a run with "
        "`signal: logits` keeps them"
    )
    name = f"{one.info.digest[:12]}{f' {who}' if who else ''}"
    return printable(f"{name}: {one.kind}, {one.form}: {one.bytes:.1f} bytes a row{tail}; {measured}")


def _table(one: Audit) -> Grid:
    from kdmesh.report.grid import Column, Grid

    def right(text: str) -> str:
        return text

    names = {
        "loss": ("dense loss", "{:.4f}"), "error": ("error", "{:+.2%}"), "standard_error": ("+-", "{:.2%}"),
        "error_of_a_row": ("of a row", "{:.2%}"), "cosine": ("cosine", "{:.4f}"), "gradient_bias": ("bias", "{:.2%}"),
    }  # fmt: skip
    rows = [
        {
            "way": way or "as it is",
            "student": student,
            **{
                name: form.format(figures[name])
                for name, (_, form) in names.items()
                if name in ("loss", "cosine") or figures["loss"] >= SMALL
            },
        }
        for (way, student), figures in one.figures.items()
    ]
    columns = [Column("in the loss", "way"), Column("student", "student")]
    columns += [Column(title, name, right) for name, (title, _) in names.items()]
    return Grid("", columns, rows)
