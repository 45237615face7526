"""Which samples are to be forgotten, and by what they are known where they went: numbers, keys, digests, and words."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.contracts.run_files import MANIFEST
from kdmesh.errors import LISTED, MeshError
from kdmesh.files import read, read_json, reason
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.loader import Loader
from kdmesh.hosts.preprocessing import Preprocessor
from kdmesh.hosts.source import Source
from kdmesh.personal.samples import fields
from kdmesh.plugins import registry
from kdmesh.streams.contents import digests
from kdmesh.streams.private import learnable, told_part
from kdmesh.streams.texts import AT_ONCE, Texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

IDS = "--ids"
BEGIN = 40  # characters by which a long text is known: messages shorten what they quote
LEAST = 6  # characters of a word by which a sample is known, if it stands in no other
AROUND = "\"'`.,;:!?()[]{}<>"  # what is written around a word


@dataclass(frozen=True)
class Asked:
    """Samples that are to be forgotten.

    ``rows``: their numbers in the source; ``numbers``: the same as the run counts them, without those that it left out
    for their personal data. ``keys`` of their values; ``digests`` of what models were given; ``words``: texts that
    stand in these samples and in no other. ``streams``: what has any of them, by name; ``twins``: how many other
    samples have the same values, which nobody can tell apart; ``unknown``: by what they could not be looked for.
    """

    rows: tuple[int, ...]
    numbers: frozenset[int]
    keys: Tensor
    digests: frozenset[bytes]
    words: tuple[str, ...]
    streams: tuple[str, ...]
    twins: int = 0
    unknown: list[str] = field(default_factory=list)


def listed(path: Path) -> list[str]:
    """The ids in a file, one a line. MeshError where there are none."""
    try:
        found = [line.strip() for line in read(path).splitlines() if line.strip()]
    except OSError as error:
        raise MeshError(f"cannot be read: {reason(error)}", where=IDS, file=str(path), instead="a text file") from None
    except UnicodeError:
        raise MeshError("is no text in UTF-8", where=IDS, file=str(path), instead="a text file, an id a line") from None
    if not found:
        raise MeshError("names no sample", where=IDS, file=str(path), instead="an id a line")
    return found


def asked(
    root: Path, spec: MeshSpec, ids: Sequence[str], column: str | None = None, pending: Iterable[int] = (),
    given: Table | None = None,
) -> Asked:  # fmt: skip
    """What is known of samples of a run.

    ``ids``: their numbers in the source from 0, or what ``column`` says of them; ``pending``: more numbers. ``given``:
    the data of a run that was given them from Python. MeshError for an id that is unknown, and for other data.
    """
    if given is None and spec.data is not None and spec.data.dataset.name == "python:given":
        what = "the run was given its data from Python, and they are not here"
        raise MeshError(what, where="RUN", instead="a run whose mesh names its data")
    plan = make_plan(spec, registry())
    with plan.naming():
        table, streams = Source(given).load(plan)
    _same(root, plan, table, streams)
    left_out = _left_out(table)
    rows = sorted({*_rows(ids, column, table, left_out), *pending})
    numbers = [row - sum(one < row for one in left_out) for row in rows if row not in left_out]
    at = torch.tensor(numbers, dtype=torch.int64)
    own = table.keys[at]
    known, unknown = _digests(plan, table, streams, at)
    return Asked(
        tuple(rows), frozenset(numbers), own, known, tuple(_words(table, numbers)),
        tuple(name for name, stream in streams.items() if bool(torch.isin(stream.every, at).any())),
        int(torch.isin(table.keys, own).sum()) - len(numbers), unknown,
    )  # fmt: skip


def _same(root: Path, plan: Plan, table: Table, streams: dict[str, Stream]) -> None:
    known = (read_json(root / MANIFEST) or {}).get("data") or {}
    told = (told_part(table, streams) if plan.withholding else table).fingerprint  # as the run wrote it
    if {name: known.get(name) for name in told} != told:
        what = "the data set has other samples now than the run had, by their sha256, so that ids mean others"
        raise MeshError(what, where="RUN", instead="the files as they were: forget first, then take the samples out")


def _left_out(table: Table) -> set[int]:
    """Rows of the source that the run left out for their personal data: all later ones are numbered anew."""
    log: Any = table.personal
    if log is None or log.action != "drop":
        return set()
    return {json.loads(line)["row"] for line in log.lines}


def _rows(ids: Sequence[str], column: str | None, table: Table, left_out: set[int]) -> list[int]:
    """The rows that ids name. MeshError with those that name none."""
    whole = len(table) + len(left_out)
    if column is None:
        odd = [one for one in ids if not (one.isascii() and one.isdecimal() and int(one) < whole)]
        if odd:
            instead = f"numbers of samples, from 0 to {whole - 1}; or --column NAME, whose values they are"
            raise MeshError(_unknown(odd), where=IDS, instead=instead)
        return [int(one) for one in ids]
    values = _column(table, column)
    kept = [row for row in range(whole) if row not in left_out]
    found: dict[str, list[int]] = {}
    for row, value in zip(kept, values, strict=True):
        found.setdefault(str(value), []).append(row)
    if odd := [one for one in ids if one not in found]:
        raise MeshError(_unknown(odd), where=IDS, instead=f"values of the column {column!r}, as the source has them")
    return [row for one in ids for row in found[one]]


def _column(table: Table, name: str) -> Sequence[Any]:
    every = {**(table.cells.columns if table.cells is not None else {}), **table.columns}
    if name not in every:
        instead = f"one of {', '.join(list(every)[:LISTED])}" if every else "numbers of samples: there is no column"
        raise MeshError(f"no column {name!r} is kept", where="--column", instead=instead)
    return every[name]


def _unknown(odd: Sequence[str]) -> str:
    """How many ids are unknown, and the first: an id may be a name, and is shortened."""
    shown = ", ".join(repr(one[:20]) for one in odd[:LISTED])
    more = f", and {len(odd) - LISTED:,} more" if len(odd) > LISTED else ""
    return f"{len(odd):,} {'id is' if len(odd) == 1 else 'ids are'} of no sample: {shown}{more}"


def _digests(plan: Plan, table: Table, streams: dict[str, Stream], rows: Tensor) -> tuple[frozenset[bytes], list[str]]:
    """What the store finds the samples by, as each agent is given them; and of whom that cannot be said."""
    reading = Preprocessor(plan, table, registry(), None, learnable(streams))
    loader, found, unknown = Loader(reading, streams, plan.spec.seed), set[bytes](), dict[str, None]()
    written = {name for name, one in plan.spec.streams.items() if one.generated_by or one.consensus_of}
    seen: set[int] = set()
    for agent in plan.owner:
        for name, stream in streams.items():
            if name in written or not stream.sees(agent) or not bool(torch.isin(stream.rows_for(agent), rows).any()):
                continue
            for told in (False, True):
                try:
                    shard = loader.shard(name, agent, torch.device("cpu"), told)
                except MeshError as error:
                    unknown[f"what {agent} was given of texts: {error.what}"] = None
                    continue
                if id(shard) in seen:
                    continue
                seen.add(id(shard))
                x: Any = shard.x
                at = torch.isin(shard.ids, rows).nonzero().flatten()
                chosen = x[at] if isinstance(x, torch.Tensor) else x.select(at)
                found |= {bytes(one.tolist()) for one in digests(chosen)}
    return frozenset(found), list(unknown)


def _words(table: Table, rows: list[int]) -> Iterator[str]:
    """Texts that stand in some samples and in no other: whole fields, their beginnings, and words."""
    if not rows:
        return
    own = set(rows)
    mine = {one for row in rows for said in _said(table, row, row + 1)[0] for one in _parts(said)}
    for start in range(0, len(table), AT_ONCE):
        every = _said(table, start, min(start + AT_ONCE, len(table)))
        for row, texts in enumerate(every, start):
            if row not in own and mine:
                mine -= {one for said in texts for one in _parts(said)}
    yield from sorted(mine, key=lambda one: (-len(one), one))


def _said(table: Table, start: int, stop: int) -> list[list[str]]:
    """All that is text in samples, a list for each."""
    columns = {**(table.cells.columns if table.cells is not None else {}), **table.columns}
    texts = [*table.x[start:stop]] if isinstance(table.x, Texts) else []
    found = []
    for row in range(start, stop):
        said = [one.text for one in fields(texts[row - start])] if texts else []
        found.append([*said, *(str(values[row]) for values in columns.values() if values[row] is not None)])
    return found


def _parts(text: str) -> Iterator[str]:
    if len(text) >= LEAST:
        yield text
    if len(text) > BEGIN:
        yield text[:BEGIN]
    for one in text.split():
        if len(word := one.strip(AROUND)) >= LEAST:
            yield word
