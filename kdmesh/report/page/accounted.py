"""What parties with a privacy budget have spent of it, by their ledgers as the run left them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.privacy.summary import line_of
from kdmesh.report.accounts import CAPTION, latest, table_of
from kdmesh.report.page.blocks import Block, Section, Text
from kdmesh.report.page.grids import table

if TYPE_CHECKING:
    from kdmesh.report.page.known import Known


def section(known: Known) -> Section | None:
    """Of all runs and meshes that asked them so far; nothing where no party has a budget."""
    blocks: list[Block] = []
    for one in latest(known.summaries).values():
        grid = table_of(one)
        blocks += [table(grid)] if grid.rows else []
        blocks.append(Text([f"{line_of(one)}.", *([CAPTION] if grid.rows else [])]))
    if not blocks:
        return None
    whole = (
        "An account counts over all runs and meshes that asked its party. What the party itself knows beside it, as "
        "epsilon in hindsight of its votes, is private and stands nowhere here."
    )
    return Section("accounts", "Privacy accounts", [*blocks, Text([whole])])
