"""What an audit of the run found, if one was made: `kdmesh audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.run_files import AUDITED
from kdmesh.files import read_json
from kdmesh.report.audited import lines_of, tables_of
from kdmesh.report.page.blocks import Block, Section, Text
from kdmesh.report.page.grids import table

if TYPE_CHECKING:
    from kdmesh.report.page.known import Known


def section(known: Known) -> Section | None:
    """Of the run, or of each of its seeds that was audited."""
    blocks: list[Block] = []
    for seed, part in known.run.runs.items():
        found = read_json(part.path / AUDITED)
        if found is None:
            continue
        of = f", seed {seed}" if len(known.run.runs) > 1 else ""
        blocks += [table(one, of) for one in tables_of(found)]
        blocks.append(Text(lines_of(found)))
    return Section("audit", "Audit: what agents tell of what they learned", blocks) if blocks else None
