"""What weights have learned from, as a record that stands with them: so that none of it becomes a test sample later."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from kdmesh.errors import MeshError
from kdmesh.spec.data import DataSpec
from kdmesh.streams.contents import Keys, pack
from kdmesh.streams.splits import split
from kdmesh.streams.table import known_by
from kdmesh.streams.texts import Texts
from kdmesh.streams.unread import chunks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

Record = dict[str, Any]
"""JSON: ``dataset``, ``source``, ``samples``, ``x_sha256``, ``y_sha256``, ``splits``, ``official`` and ``seen``."""

ATTRIBUTE = "kdmesh_learned_from"
"""Where a module that kdmesh gave out carries its records: a list, with None for what is not known."""

LEARNED = "learned_from"
"""Where an agent's folder has its records: in the header of its weights' files, and, but for keys, in JSON."""

SEEN = "seen"
"""Of a record: keys of what ``taught`` and of what it ``chose`` by, and how many samples are ``private``, so untold."""

USED = ("train", "validation", "transfer")  # the splits that teach, or choose when to stop
HELD_OUT = {"test": USED, "validation": ("train", "transfer")}  # what must not have taught, by what is measured

TENTH = 0.1
"""Of 1 / sqrt(n): what fewer learned ones among n samples cannot move an accuracy by. Its standard error is larger."""


@dataclass(frozen=True)
class Leak:
    """Of a split that is held out now, samples that a record's bearer has learned.

    ``moved``: they are told by rows, of the same data split in another way, and may have taught. Else their values are
    known to have; ``few``: not more of them than data that repeat themselves have by chance, or than figures can show.
    """

    split: str
    count: int
    whole: int
    moved: bool = False
    few: bool = False


def record(
    table: Table, data: DataSpec, taught: Tensor | None = None, chose: Tensor | None = None, private: int = 0
) -> Record:
    """Return what identifies a table and its splits, no path and no sample, and of samples the keys.

    ``taught`` and ``chose``: rows that were learned, and by which it was chosen when to stop; ``private``: how many
    more were learned of which nothing may be told. ``seen`` is left out without ``taught``, and where the samples have
    other values at every reading.
    """
    found = {
        "dataset": data.dataset.name,
        "source": Path(table.source).name,
        "samples": len(table),
        **table.fingerprint,
        "splits": data.model_dump(mode="json", exclude={"dataset", "prepare", "licence"}),
        "official": {name: _runs(rows) for name, rows in table.official.items()},
    }
    if taught is not None and table.deterministic:
        by = table.keys[:0] if chose is None else table.keys[chose]
        found[SEEN] = {"taught": pack(table.keys[taught]), "chose": pack(by), "private": private}
    return found


def brief(records: list[Record | None]) -> list[Record | None]:
    """Return records without keys, for people to read; :func:`told` knows that they stand elsewhere."""
    return [
        one if one is None or SEEN not in one
        else {**one, SEEN: {k: {"count": v["count"]} if isinstance(v, dict) else v for k, v in one[SEEN].items()}}
        for one in records
    ]  # fmt: skip


def in_header(file: Path) -> list[Record | None] | None:
    """Return the records in the header of a weights' file, which stay when it is moved; None where it has none."""
    try:
        with safe_open(file, framework="pt") as opened:
            learned = json.loads((opened.metadata() or {})[LEARNED])
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError):
        return None  # what is no such file is refused where it is read
    return learned if isinstance(learned, list) else None


def carry(module: nn.Module, records: list[Record | None]) -> None:
    """Let a module and every part of it carry records: any of them may become part of another module."""
    for part in module.modules():
        setattr(part, ATTRIBUTE, records)


def carried(module: nn.Module) -> list[Record | None]:
    """Return the records that a module or its parts carry; None among them where nothing is known."""
    lists = {id(vars(part)[ATTRIBUTE]): vars(part)[ATTRIBUTE] for part in module.modules() if ATTRIBUTE in vars(part)}
    found = [one for records in lists.values() for one in records]
    return [one for number, one in enumerate(found) if one not in found[:number]] if lists else [None]


def overlap(before: Record, table: Table, streams: Mapping[str, Stream]) -> Leak | None:
    """Return the first split that is held out now of which a record's bearer has learned, or may have.

    Of the same samples in the same order, rows tell: what the record's splits were, under its seed. Of any others their
    values do. Data that share the labels and the source's name are taken for other columns of one file, and asked both
    ways. A damaged record is a ValueError.
    """
    try:
        same = _same(before, table)
        known = not same or before["y_sha256"] == table.fingerprint["y_sha256"] or not before["splits"]["stratify"]
        rows = _by_rows(before, table, streams) if (same or _named(before, table)) and known else None
        if rows is not None or (same and known):
            return rows
        seen = _seen(before) if table.deterministic else None
        if seen is not None and not (same and seen["private"]):
            return _by_values(seen, table, streams)
        if same:  # divided by other labels, so in any way
            held = next((name for name in HELD_OUT if name in streams), None)
            count = 0 if held is None else len(streams[held].rows)
            return None if held is None else Leak(held, count, count, moved=True)
        return None
    except (KeyError, TypeError, AttributeError, MeshError) as error:
        raise ValueError(f"no record of data: {error}") from None


def untold(before: Record, table: Table) -> str:
    """Return why a sound record cannot tell which samples of a table its bearer has learned; "" where it can."""
    if _same(before, table) or _named(before, table):
        return ""
    if not table.deterministic:
        return "samples have other values here at every reading"
    seen = _seen(before)
    if seen is None:
        return "the samples are not recorded one by one"
    return f"{seen['private']:,} samples were private, so that nothing is recorded of them" if seen["private"] else ""


def changes(before: Record, table: Table, data: DataSpec) -> str:
    """Return the settings under which a record's splits come out again: ``data.seed: 0, data.validation: 0.1``."""
    now = record(table, data)["splits"]
    then = {key: value for key, value in before["splits"].items() if now.get(key) != value}
    settings = [
        f"no data.{key}" if value is None else f"data.{key}: {str(value).lower()}" for key, value in then.items()
    ]
    return ", ".join(settings) or "the same files and labels"


def _same(before: Record, table: Table) -> bool:
    """Whether the samples are those recorded, in the same order."""
    return bool(before["samples"] == len(table) and before["x_sha256"] == table.fingerprint["x_sha256"])


def _seen(before: Record) -> dict[str, Any] | None:
    """The samples that are recorded one by one; None where they are not, or stand elsewhere, see :func:`brief`."""
    seen: dict[str, Any] | None = before.get(SEEN)
    return None if seen is None or "keys" not in seen["taught"] else seen


def _named(before: Record, table: Table) -> bool:
    """Whether data have the labels of those recorded, and their name."""
    labels = table.y is not None and before["y_sha256"] == table.fingerprint["y_sha256"]
    alike = labels and before["samples"] == len(table)
    return bool(alike and before["source"] == Path(table.source).name not in ("", "torch"))


def _by_rows(before: Record, table: Table, streams: Mapping[str, Stream]) -> Leak | None:
    official = {name: _rows(runs) for name, runs in before["official"].items()}
    was = split(replace(table, official=official), DataSpec.model_validate({"dataset": "any", **before["splits"]}))
    for name, used in HELD_OUT.items():
        if name in streams:
            learned = torch.cat([was[part] for part in used if part in was])
            count = int(torch.isin(streams[name].rows, learned).sum())
            if count:
                return Leak(name, count, len(streams[name].rows), moved=True)
    return None


def _by_values(seen: dict[str, Any], table: Table, streams: Mapping[str, Stream]) -> Leak | None:
    """Samples that the rest of the table repeats are the data's own, and are not counted."""
    taught, chose = Keys(seen["taught"]), Keys(seen["chose"])
    rest, few = torch.ones(len(table), dtype=torch.bool), None
    for name, learned in {"test": [taught, chose], "validation": [taught]}.items():
        if name not in streams:
            continue
        size = len(streams[name].rows)
        rest[streams[name].rows] = False
        asked = table.keys[streams[name].rows]
        asked = asked[torch.stack([one.told(asked) for one in learned]).all(0)]
        own = torch.isin(asked, table.keys[rest])
        had = torch.stack([one.have(asked) for one in learned]).any(0) & ~own
        count, whole = int(had.sum()), len(asked)
        if not count:
            continue
        found = round(count * size / whole)
        share = _met(_twins(table), taught.count / len(table))
        chance = _by_chance(count, whole - int(own.sum()), share)
        leak = Leak(name, found, size, few=chance or found <= TENTH * size**0.5)
        if not leak.few:
            return leak
        few = few or leak
    return few


def _met(share: float, draws: float) -> float:
    """The share of samples that other data repeat by chance: ``share`` in a draw as large as the table, of ``draws``.

    More draws miss a sample only if each of them does.
    """
    return share * draws if draws <= 1 or share >= 1 else 1 - (1 - share) ** draws


def _by_chance(count: int, left: int, share: float) -> bool:
    """Whether, of ``left`` samples that the table does not repeat, others have no more than chance gives.

    ``share``: what another draw repeats of such samples. Three standard errors are allowed for.
    """
    share = min(share, 1.0)
    return count <= share * left + 3 * (left * share * (1 - share)) ** 0.5


def _twins(table: Table) -> float:
    """The share of a table's single samples that another draw of its size would have by chance.

    Twice as many as come in pairs here (of what comes seldom, the counts are Poisson's); and where features have few
    values, as many as there would be if each combination were as likely as any other.
    """
    often = table.keys.unique(return_counts=True)[1]
    share = 2 * int((often == 2).sum()) / max(int((often == 1).sum()), 1)
    if isinstance(table.x, Texts):
        return share
    values: list[Tensor] = []  # of each column, those that it has
    for samples in chunks(table.source_x):
        part, possible = known_by(table, samples), 1.0
        for number, column in enumerate(part.reshape(len(part), -1).unbind(1)):
            own = torch.cat([*values[number : number + 1], column]).unique()
            values[number : number + 1] = [own]
            possible *= max(len(own), 1)
            if possible > len(table) ** 2:  # no two draws would meet
                return share
    return max(share, len(table) / possible)


def _runs(rows: Tensor) -> list[list[int]]:
    """Rows as ``[first, end]`` of every range without a gap, ascending."""
    rows = rows.to(torch.int64).sort().values
    if not len(rows):
        return []
    gaps = (rows.diff() != 1).nonzero().flatten() + 1
    return [[int(part[0]), int(part[-1]) + 1] for part in rows.tensor_split(gaps.tolist())]


def _rows(runs: list[list[int]]) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.int64), *(torch.arange(first, end) for first, end in runs)])
