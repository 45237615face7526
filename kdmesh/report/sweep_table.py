"""The tables of a sweep: the best points by validation, what each arm searched, and the test of what was chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kdmesh.report.compare_table import compare_tables
from kdmesh.report.grid import KEPT, Column, Grid, figure
from kdmesh.tasks import metric

SHOWN = 10  # points of an arm


def sweep_tables(table: Mapping[str, Any]) -> list[Grid]:
    """Lay out a ``sweep_result.json``."""
    points = [grid for row in table["arms"] if row["paths"] for grid in [_points(table, row)]]
    return [*points, _arms(table), *compare_tables(table["final"])]


def _points(table: Mapping[str, Any], arm: Mapping[str, Any]) -> Grid:
    """The best points of an arm, in its last rung."""
    last, by = len(table["rungs"]) - 1, metric(table["metric"])
    own = [row for row in table["points"] if row["arm"] == arm["arm"] and row["rung"] == last]
    known = sorted((row for row in own if row["validation"] is not None), key=lambda row: -by.worth(row["validation"]))
    ranked = [*known, *(row for row in own if row["validation"] is None)]
    rows = [
        {
            "chosen": "chosen" if row["chosen"] else None,
            "validation": row["validation"],
            "state": None if row["validation"] is not None else f"failed {row['failed']} of {row['trials']}",
            "trials": row["trials"],
            **{path: written(row["values"][path]) for path in arm["paths"]},
        }
        for row in ranked[:SHOWN]
    ]
    left = len(ranked) - len(rows)
    heads = _heads(arm["paths"])
    spare = KEPT if len(heads) < 3 else 0  # where there are few, they name the row
    columns = [
        *(Column(head, path, spare=spare) for head, path in zip(heads, arm["paths"], strict=True)),
        Column(f"validation\n{by.title}", "validation", figure),
        Column("", "chosen"),
        Column("", "state", spare=1),
        Column("trials", "trials", spare=2),
    ]
    more = f"{left} more in points.csv" if left > 0 else ""
    return Grid(f"{arm['arm']}: points by validation", columns, rows, more)


def _arms(table: Mapping[str, Any]) -> Grid:
    rows = [
        {
            "arm": row["arm"],
            "points": row["points"] or None,
            "trials": row["trials"] or None,
            "failed": row["failed"] or None,
            "updates": row["updates"] or None,
            "validation": row["validation"],
        }
        for row in table["arms"]
    ]
    columns = [
        Column("", "arm", spare=KEPT),
        Column("points", "points"),
        Column("trials", "trials"),
        Column("failed", "failed", spare=1),
        Column(f"updates of\n{table['agent']}", "updates", lambda count: f"{count:,}"),
        Column("chosen, on\nvalidation", "validation", figure, spare=1),
    ]
    return Grid("what was searched", columns, rows, "\n".join(remarks(table)))


def remarks(table: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the search, in sentences."""
    arms = {row["arm"]: row for row in table["arms"]}
    lines = [
        "Points were chosen on validation alone; no trial of the search was measured on test. "
        "What was chosen was then trained anew with other seeds, and tested once."
    ]
    searched = [row for row in arms.values() if row["paths"]]
    if len(searched) > 1 and len({row["trials"] for row in searched}) == 1:
        lines.append("Every arm had as many trials.")
    if len(table["rungs"]) > 1:
        rungs = ", ".join(f"{one['points']} with {_share(one['part'])}" for one in table["rungs"])
        lines.append(f"Halving: {rungs}; a point that goes on is trained anew, so that schedules fit its budget.")
    for row in arms.values():
        if not row["paths"]:
            lines.append(f"None of the paths concerns {row['arm']}: it was not searched.")
        elif row["chosen"] is None:
            lines.append(f"Every point of {row['arm']} failed.")
        elif row["paths"] != table["paths"]:
            lines.append(f"{row['arm']} is concerned by {', '.join(row['paths'])} alone.")
    return lines


def _share(part: int) -> str:
    return "the whole budget" if part == 1 else f"1/{part} of it"


def _heads(paths: Sequence[str]) -> list[str]:
    """Each path by its last part, or whole, in lines, where two end alike."""
    lasts = [path.rpartition(".")[2] for path in paths]
    return [
        last if lasts.count(last) == 1 else path.replace(".", ".\n") for path, last in zip(paths, lasts, strict=True)
    ]


def written(value: Any) -> str:
    """A setting as text."""
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
