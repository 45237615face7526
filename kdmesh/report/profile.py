"""What each offer and observer took, of runs that were asked to count it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.report.grid import KEPT, Column, Grid

if TYPE_CHECKING:
    from collections.abc import Mapping

CAPTION = (
    "Seconds of calls, of all hosts together, also of measuring and publishing, one within another too; without the "
    "backward pass; on a GPU those of launches."
)


def tables(summaries: Mapping[int, Mapping[str, Any]]) -> list[Grid]:
    """A table for each seed whose summary has such costs."""
    columns = (
        Column("kind", "kind", spare=KEPT),
        Column("name", "name", spare=KEPT),
        Column("from", "from", spare=1),
        Column("calls", "calls", lambda calls: f"{calls:,}"),
        Column("s", "seconds", lambda seconds: f"{seconds:.3f}"),
        Column("ms a step", "seconds_a_step", lambda seconds: f"{1000 * seconds:.3f}"),
    )
    found = {seed: summary.get("costs", {}).get("plugins") for seed, summary in summaries.items()}
    return [
        Grid(f"Plugins, seed {seed}" if len(found) > 1 else "Plugins", columns, rows, CAPTION)
        for seed, rows in found.items()
        if rows
    ]
