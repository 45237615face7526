"""What is not wrong with data, and worth saying before anyone trains on them."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.streams.learned import HELD_OUT
from kdmesh.streams.table import NOT_ASKED
from kdmesh.streams.texts import Texts
from kdmesh.streams.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

SHOWN = 5  # names that are written out
WIDE = 100.0  # a feature's spread beyond which it is called unscaled
COPIED = 0.5  # of a held-out split: beyond it, figures are of what was learned
LOOK = 500  # rows of train, up to twice as many, that are looked at before all of them are
FEW = 2.0  # samples a class below which classes look like ids


def remarks(table: Table, streams: Mapping[str, Stream]) -> list[str]:
    """What is left out, values that are not scaled, and labels that are odd."""
    why = [f"{name} ({reason})" for name, reason in table.left_out.items() if reason != NOT_ASKED]
    left = [f"columns that are left out: {_some(why)}"] if why else []
    return [
        *left,
        *table.notes,
        *_unscaled(table),
        *_telling(table, streams),
        *_classes(table, streams),
        *_same(table, streams),
    ]


def leaks(table: Table, streams: Mapping[str, Stream]) -> list[str]:
    """Held-out samples that are taught, too, under other ids: test files that repeat training files."""
    held = [name for name in ("test", "validation") if name in streams]
    if not held:
        return []
    keys, alike = table.keys, "the query" if table.lists else "the values"
    found = []
    for name in held:
        learned = torch.cat([keys[streams[part].rows] for part in HELD_OUT[name] if part in streams])
        own = keys[streams[name].rows]
        count = int(torch.isin(own, learned).sum())
        most = f": {name} figures are of what was learned" if count > COPIED * len(own) else ""
        if count == len(own):
            file = "; is its file that of train?" if name in table.official else ""
            found.append(f"every {name} sample has {alike} of one that teaches{most}{file}")
        elif count:
            found.append(f"{count} of the {len(own)} {name} samples have {alike} of one that teaches{most}")
    if len(keys) > 1 and not table.lists and bool((keys == keys[0]).all()):
        found.append(f"all {len(keys)} samples are alike: there is nothing to tell classes by")
    return found


def _unscaled(table: Table) -> list[str]:
    if isinstance(table.x, Texts):
        return []
    low, high = table.bounds
    wide = (torch.maximum(high, -low) > WIDE).nonzero().flatten().tolist()
    if not wide:
        return []
    names = table.features or [f"feature {number}" for number in range(len(low))]
    names = names if table.x.dim() == 2 else ["the samples"]
    ranges = _some([f"{names[column]} ({low[column]:g} to {high[column]:g})" for column in wide])
    kind = "numbers" if table.x.dim() == 2 else "pixels"
    how = f"prepare: [{{columns: {kind}, scale: standard}}]" if isinstance(table.x, Tensor) else "scale them beforehand"
    return [f"values that are not scaled: {ranges}; models may learn little from them: {how}"]


def _telling(table: Table, streams: Mapping[str, Stream]) -> list[str]:
    """Features that are the label: of classes, in train each value stands with one, and nowhere else."""
    numbers = None if isinstance(table.x, Texts) else table.source_x
    if numbers is None or table.y is None or "train" not in streams or numbers.dim() != 2:
        return []
    rows = streams["train"].rows
    truth = table.y[rows].reshape(len(rows), -1)
    some = torch.arange(0, len(rows), max(1, len(rows) // LOOK))  # of all parts of files that are sorted
    parts = _equal if table.kind == "values" else _same_parts
    look, pairs = numbers[rows[some]], product(range(numbers.shape[1]), range(truth.shape[1]))
    maybe = [(one, target) for one, target in pairs if parts(look[:, one], truth[some, target])]
    columns = sorted({one for one, _ in maybe})
    own = numbers.select(rows).parts() if isinstance(numbers, Unread) and maybe else iter([look[:0]])
    x = numbers[rows][:, columns] if isinstance(numbers, Tensor) else torch.cat([part[:, columns] for part in own])
    names = table.features if table.known is None else table.sources
    found = []
    for one, target in maybe:
        many = parts(x[:, columns.index(one)], truth[:, target])
        if many if table.kind == "values" else 1 < many < len(rows):
            label = f" ({table.labels[target]})" if truth.shape[1] > 1 and table.labels else ""
            found.append(f"{names[one] if names else f'feature {one}'}{label}")
    return [f"features that are the label, which is all that models will learn: {_some(found)}"] if found else []


def _equal(one: Tensor, two: Tensor) -> int:
    return int(torch.equal(one, two))


def _same_parts(one: Tensor, two: Tensor) -> int:
    """Into how many parts values ``[n]`` divide the rows, if others divide them just so; else 0."""
    first = one.nan_to_num(torch.inf).unique(return_inverse=True)[1]
    second = two.unique(return_inverse=True)[1]
    count = len(first.unique())
    return count if count == len(second.unique()) == len((first * len(second) + second).unique()) else 0


def _classes(table: Table, streams: Mapping[str, Stream]) -> list[str]:
    if table.strata is None:
        return []
    found, names = [], table.labels
    there = table.strata[table.strata >= 0].unique()
    if len(there) == 1:
        found.append("every sample is of one class: there is nothing to learn")
    if table.classes > 2 and len(table) < FEW * len(there):
        found.append(f"{len(there):,} classes for {len(table):,} samples: is the label a column of ids?")
    alike: dict[str, list[str]] = {}
    for name in table.labels:
        alike.setdefault(name.strip().casefold(), []).append(name)
    for group in alike.values():
        if len(group) > 1:
            found.append(f"classes that differ in blanks or capitals only: {_some([repr(name) for name in group])}")
    if "train" in streams and len(there) > 1:
        learned = table.strata[streams["train"].rows].unique()
        never = int(table.classes - len(there))
        if never:
            found.append(
                f"{never:,} of the {table.classes:,} classes have no sample: the labels are {_some(there.tolist())}; "
                f"numbered from 0, or as names, they would be {len(there)} classes"
            )
        lost = there[~torch.isin(there, learned)].tolist()
        if lost:
            lost = [names[number] if names else number for number in lost]
            found.append(f"classes without a training sample: {_some(lost)}")
    return found


def _same(table: Table, streams: Mapping[str, Stream]) -> list[str]:
    """Labels that hold of every training sample, or of none: there is nothing to learn about them."""
    if table.kind != "indicators" or table.y is None or "train" not in streams:
        return []
    learned = table.y[streams["train"].rows]
    same = (learned == learned[:1]).all(0).nonzero().flatten().tolist() if len(learned) else []
    names = _some([table.labels[column] if table.labels else column for column in same])
    return [f"labels that are the same in every training sample: {names}"] if same else []


def _some(names: Sequence[str | int]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more
