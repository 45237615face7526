"""Private streams: a host holds, and is sent, only the samples that its own agents own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from kdmesh.streams.texts import Texts
from kdmesh.streams.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

NOBODY = -1
"""The label of a sample that is not here: any use of it fails."""


def learnable(streams: dict[str, Stream]) -> Tensor | None:
    """The rows of `train` that a tokenizer may be made from, or `prepare` fitted on: every host has it, so that none is
    private.

    None where there is no `train`.
    """
    if "train" not in streams:
        return None
    rows = streams["train"].rows
    for stream in streams.values():
        if stream.private:
            rows = rows[~torch.isin(rows, stream.rows)]
    return rows


def own_part(
    table: Table, streams: dict[str, Stream], agents: Iterable[str], users: Mapping[str, Sequence[str]] | None = None
) -> Table:
    """The table as a host with these agents may hold it: samples that are private to others are blanked.

    A private stream's samples are their shard's owner's; of one without shards its ``users``'. A blank has the value
    NaN or an empty text, no label, and empty columns. A sample that one of these agents owns in any private stream
    stays, and so does what a stream pools. Where nothing is private to others, the table itself.
    """
    here = set(agents)
    blank = torch.zeros(len(table), dtype=torch.bool)
    held = torch.zeros(len(table), dtype=torch.bool)
    for stream in streams.values():
        if stream.pooled:
            held[stream.rows] = True
        if not stream.private:
            continue
        for owner, rows in (stream.shards or {}).items():
            (held if owner in here else blank)[rows] = True
        if stream.shards is None:
            (held if here.intersection((users or {}).get(stream.name, ())) else blank)[stream.rows] = True
    blank &= ~held
    if not blank.any():
        return table
    if isinstance(table.x, Texts | Unread):
        x: Tensor | Texts | Unread = table.x.blanked(blank)
    else:
        x = _blanked(table.x, blank)
    gone = blank.tolist()
    return replace(
        table,
        x=x,
        own={name: (_blanked(seen, blank), made) for name, (seen, made) in table.own.items()},
        known=None if table.known is None else _blanked(table.known, blank),
        y=None if table.y is None else torch.where(blank.view(-1, *[1] * (table.y.dim() - 1)), NOBODY, table.y),
        columns={
            name: ["" if hide else value for value, hide in zip(values, gone, strict=True)]
            for name, values in table.columns.items()
        },
    )


def told_part(table: Table, streams: dict[str, Stream]) -> Table:
    """The table as one has it to whom nothing private belongs. Of it sums may be told; those of private samples say
    whether a guess of one is right to whoever knows the others.
    """
    return own_part(table, streams, ())


def _blanked(x: Tensor, blank: Tensor) -> Tensor:
    return torch.where(blank.view(-1, *[1] * (x.dim() - 1)), torch.nan, x)
