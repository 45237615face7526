"""What parties have spent of their privacy budgets, as tables and lines: for the terminal, a page and the cards.

All of it is public: what may be known of each party's private samples was decided by its ledger before it was said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.report.grid import KEPT, Column, Grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.privacy.summary import Summary

CAPTION = "epsilon and exact: of these answers alone; they do not add up. room for: how many more, of one kind."


def table_of(found: Summary) -> Grid:
    """An account, a row for each way of answering."""
    title = f"Ledger of {found['party']}: protects one {found['unit']} ({found['adjacency']}); noise of {found['key']}"
    columns = [
        Column("mechanism", "mechanism", spare=KEPT),
        Column("settings", "settings", spare=3),
        Column("answers", "answers", "{:,}".format),
        Column("sensitivity", "sensitivity", "{:.4f}".format, 1),
        Column("sigma", "sigma", "{:g}".format),
        Column("rate", "rate", "{:.4g}".format, 2),
        Column("epsilon", "rdp", "{:.4f}".format),
        Column("exact", "exact", "{:.4f}".format),
        Column("room for", "more", "{:,}".format, 2),
        Column("noise by", "noise_by", spare=4),
    ]
    rows: list[dict[str, Any]] = [
        {**row, "settings": row["settings"] or None, "rate": row["rate"] if row["rate"] < 1 else None}
        for row in found["mechanisms"]
    ]
    return Grid(title, columns, rows, CAPTION)


def latest(summaries: Iterable[Mapping[str, Any]]) -> dict[str, Summary]:
    """By party, its account as the last of some runs left it: it counts over all of them."""
    found: dict[str, Summary] = {}
    for summary in summaries:
        for party, one in (summary.get("privacy") or {}).items():
            if party not in found or one["charges"] >= found[party]["charges"]:
                found[party] = one
    return found
