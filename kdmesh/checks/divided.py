"""What of a divided stream each of its owners has: samples of each class, and values of the column that divides it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan
    from kdmesh.streams.stream import Stream

WIDE = 78  # cells of a table of counts; what needs more is said in words
MANY = 20  # owners
VALUES = 5  # of a column


def told(plan: Plan, found: Checked) -> list[str]:
    """A few lines for each divided stream; nothing where it has no classes and is divided by no column."""
    lines: list[str] = []
    for name, stream in found.streams.items():
        if stream.shards is None or stream.replay:
            continue
        parts = _parts(plan, found, stream)
        shown = {owner: parts[owner] for owner in list(parts)[:MANY]}
        spec = plan.spec.streams.get(name)
        column = spec.shards.column if spec is not None and spec.shards is not None else None
        said: list[str] = []
        if found.table.strata is not None:
            counted = {owner: _counts(found, found.table.strata[rows]) for owner, rows in shown.items()}
            said += [f"samples of each class in stream {name}, by owner:", *_classes(found, counted)]
        if column is not None:
            said += [f"values of {column!r} in stream {name}, by owner:", *_values(found, column, shown)]
        lines += [*said, f"  and {len(parts) - MANY} more"] if said and len(parts) > MANY else said
    return lines


def _parts(plan: Plan, found: Checked, stream: Stream) -> dict[str, Tensor]:
    """The rows of each owner whose samples are here: of a party, or else of the first agent that has them."""
    party_of = {agent: name for name, party in plan.spec.parties.items() for agent in party.agents}
    away, parts = found.table.elsewhere, {}
    for agent, rows in stream.parts(stream.rows).items():
        if away is None or not torch.isin(rows, away).any():
            owner = party_of.get(agent, agent)
            parts[owner if owner not in parts else agent] = rows
    return parts


def _counts(found: Checked, known: Tensor) -> list[int]:
    """Samples of each class, of their labels."""
    return [int(one) for one in torch.bincount(known[known >= 0], minlength=found.table.classes)]


def _classes(found: Checked, counted: dict[str, list[int]]) -> list[str]:
    """A table of counts, or, where that is too wide, how many classes each owner has and which most of."""
    names = [str(number) for number in range(found.table.classes)]
    first = max(map(len, counted), default=0)
    widths = [max(len(name), *(len(str(row[at])) for row in counted.values())) for at, name in enumerate(names)]
    if counted and 2 + first + sum(width + 2 for width in widths) <= WIDE:
        rows = [("", names), *((owner, list(map(str, row))) for owner, row in counted.items())]
        return [
            f"  {owner:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            for owner, cells in rows
        ]
    lines = []
    for owner, row in counted.items():
        most = max(range(len(row)), key=row.__getitem__)
        name = found.table.labels[most] if found.table.labels else most
        has, all_ = sum(count > 0 for count in row), sum(row)
        lines.append(f"  {owner}: {all_:,} samples of {has} classes, {row[most] / max(all_, 1):.0%} of {name}")
    return lines


def _values(found: Checked, column: str, parts: dict[str, Tensor]) -> list[str]:
    lines = []
    for owner, rows in parts.items():
        values = sorted({found.table.columns[column][row] for row in rows.tolist()})
        more = f" and {len(values) - VALUES} more" if len(values) > VALUES else ""
        lines.append(f"  {owner}: {', '.join(values[:VALUES])}{more}")
    return lines
