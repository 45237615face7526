"""Private streams: a host holds only the samples that its own agents own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from kdmesh.streams.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

NOBODY = -1
"""The label of a sample that is not here: any use of it fails."""


def own_part(table: Table, streams: dict[str, Stream], agents: Iterable[str]) -> Table:
    """The table as a host may hold it: samples of private shards that other agents own are blanked.

    A blank has the value NaN or an empty text, no label, and empty columns. A sample that one of these
    agents owns in any private stream stays. Without private shards, the table itself.
    """
    here = set(agents)
    blank = torch.zeros(len(table), dtype=torch.bool)
    for stream in streams.values():
        if stream.private and stream.shards is not None:
            for owner, rows in stream.shards.items():
                if owner not in here:
                    blank[rows] = True
    for stream in streams.values():
        if stream.private and stream.shards is not None:
            for owner in here & stream.shards.keys():
                blank[stream.shards[owner]] = False
    if not blank.any():
        return table
    if isinstance(table.x, Texts):
        x: Tensor | Texts = table.x.blanked(blank)
    else:
        x = torch.where(blank.view(-1, *[1] * (table.x.dim() - 1)), torch.nan, table.x)
    gone = blank.tolist()
    return replace(
        table,
        x=x,
        y=None if table.y is None else torch.where(blank, NOBODY, table.y),
        columns={
            name: ["" if hide else value for value, hide in zip(values, gone, strict=True)]
            for name, values in table.columns.items()
        },
    )
