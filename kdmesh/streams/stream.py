"""Streams: the splits, and what a mesh makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError, nearest
from kdmesh.spec.data import SPLITS
from kdmesh.spec.parties import OWN
from kdmesh.streams.seeds import mix
from kdmesh.streams.selected import selected
from kdmesh.streams.shards import shard
from kdmesh.streams.splits import count_of, draw, split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kdmesh.spec.data import DataSpec, ShardSpec, StreamSpec
    from kdmesh.streams.table import Table

MOST_TEXTS = 100_000_000
"""Samples of a written stream: the texts of all its prompts. A few numbers are kept of each."""


@dataclass
class Stream:
    """Rows of the table (ascending int64) that a phase or a flow runs over.

    ``shards`` maps an agent to its own part of ``rows``, ``heirs`` one that answers for another's samples to that one;
    ``labelled`` says whether labels may be read here; what is made on a ``private`` stream stays on its agent's host; a
    ``replay`` stream repeats the previous batch of ``base``. Where texts are written, ``rows`` are those of the
    prompts, each ``draws`` times, one after the other; ``mixed`` are those of given texts that come among them. Of
    ``pairs`` both answers of a sample are read.
    """

    name: str
    rows: Tensor
    labelled: bool
    private: bool = False
    shards: dict[str, Tensor] | None = None
    replay: bool = False
    base: str | None = None
    draws: int = 1
    mixed: Tensor | None = None
    pairs: bool = False
    heirs: Mapping[str, str] = field(default_factory=dict)
    pooled: bool = False  # samples that are private elsewhere, in a simulation in which everyone sees them
    apart: bool = False  # nobody has the samples of more than one shard: what is drawn is drawn of each by itself

    @property
    def every(self) -> Tensor:
        """All rows that are seen on it, some perhaps several times."""
        return self.rows if self.mixed is None else torch.cat([self.rows, self.mixed])

    def owner(self, agent: str) -> str:
        """Whose order an agent's batches have: the first agent's that has the same shard; "" where none are divided."""
        if self.shards is None:
            return ""
        own = self.rows_for(agent)
        return next(name for name, rows in self.shards.items() if torch.equal(rows, own))

    def sees(self, agent: str) -> bool:
        """Whether an agent has a part in it: always where it is not divided."""
        return self.shards is None or agent in self.shards or self.heirs.get(agent) in self.shards

    def parts(self, rows: Tensor) -> dict[str, Tensor]:
        """Those of some rows that are in each shard, by the first agent that has it."""
        found = {agent: own for agent, own in (self.shards or {}).items() if self.owner(agent) == agent}
        return {agent: own[torch.isin(own, rows)] for agent, own in found.items()}

    def rows_for(self, agent: str) -> Tensor:
        """Return the rows that this agent sees: its own shard of a sharded stream, else all of them."""
        if self.shards is None:
            return self.rows
        if agent not in self.shards:
            agent = self.heirs.get(agent, agent)
        if agent not in self.shards:
            raise MeshError(
                f"{agent} has no shard of stream {self.name!r}",
                where=f"streams.{self.name}.shards.of",
                instead=nearest(agent, self.shards, "agents with a shard"),
            )
        return self.shards[agent]


def resolve(table: Table, data: DataSpec, streams: dict[str, StreamSpec]) -> dict[str, Stream]:
    """Return every stream by name: the splits that there are, then the named ones in the file's order.

    A stream takes its samples `of` a split or another stream, in any order of writing. It inherits from that one:
    hidden labels stay hidden, private stays private, shards are narrowed with the rows; what each party has for itself
    is divided within each. `rest_of` leaves out what other streams have taken from it, `select` keeps the samples that
    a file names, `where` keeps values of columns, `only` and `without` filter by class, then `size` draws from what is
    left (stratified as the splits are), then `shards` divide. What is drawn depends on ``data.seed`` and on the
    stream's name.
    """
    labelled = table.y is not None or table.is_text  # tags and tokens are the texts' own
    found = {name: Stream(name, rows, labelled and name != "transfer") for name, rows in split(table, data).items()}
    if OWN in found:
        found[OWN] = replace(found[OWN], private=True, shards=dict(table.owners), apart=True)
    known = {*found, *streams}

    def find(name: str, path: tuple[str, ...], field: str = "of") -> Stream:
        where = f"streams.{path[-1]}.{field}" if path else f"streams.{name}"
        if name in path:
            cycle = " -> ".join((*path[path.index(name) :], name))
            raise MeshError(f"streams made of one another: {cycle}", where=where)
        if name not in known:
            missing = f"data.{name}: 0.2 makes that split; " if name in SPLITS else ""
            instead = missing + nearest(name, known, "known streams")
            raise MeshError(f"unknown stream {name!r}", where=where, instead=instead)
        if name not in found:
            spec, here = streams[name], (*path, name)
            base = find(spec.of, here) if spec.prompts is None else find(spec.prompts, here, "prompts")
            taken = [find(other, here, "rest_of") for other in spec.rest_of or ()]
            found[name] = _derive(name, spec, base, taken, table, data)
            if spec.mix is not None:
                found[name].mixed = find(spec.mix.of, here, "mix.of").rows
        return found[name]

    for name in streams:
        if name in SPLITS or (name == OWN and table.owners):
            raise MeshError(f"{name} is the name of a split", where=f"streams.{name}", instead="another name")
        find(name, ())
    starts = (*SPLITS, OWN) if table.owners else SPLITS
    return {name: found[name] for name in (*(s for s in starts if s in found), *streams)}


def without(streams: dict[str, Stream], rows: Tensor | None) -> dict[str, Stream]:
    """The streams less some rows of the table."""
    if rows is None or not len(rows):
        return streams

    def rest(own: Tensor) -> Tensor:
        return own[~torch.isin(own, rows)]

    return {
        name: replace(
            stream,
            rows=rest(stream.rows),
            mixed=None if stream.mixed is None else rest(stream.mixed),
            shards=None if stream.shards is None else {agent: rest(own) for agent, own in stream.shards.items()},
        )
        for name, stream in streams.items()
    }


def _derive(name: str, spec: StreamSpec, base: Stream, taken: list[Stream], table: Table, data: DataSpec) -> Stream:
    where = f"streams.{name}"
    stream = replace(
        base,
        name=name,
        labelled=(base.labelled or spec.label is not None) and spec.labels,
        private=base.private or spec.private,
        base=None,
        replay=False,
        pairs=(base.pairs or spec.pairs is True) and spec.prompts is None,
    )
    if spec.prompts is not None:
        draws = 1 if spec.sampling is None else spec.sampling.samples
        if len(base.rows) * draws > MOST_TEXTS:
            raise MeshError(
                f"{draws:,} texts to each of {len(base.rows):,} prompts are more than the {MOST_TEXTS:,} of a stream",
                where=f"{where}.sampling.samples",
                instead=f"samples: {max(MOST_TEXTS // len(base.rows), 1)} at most",
            )
        return replace(stream, rows=base.rows.repeat_interleave(draws), draws=draws)
    narrowing = (spec.select, spec.size, spec.where, spec.only, spec.without)
    narrowed = bool(taken) or any(one is not None for one in narrowing)
    if spec.replay:
        if narrowed or spec.shards:
            raise MeshError(
                "a replay repeats whole batches: rest_of, select, size, where, only, without, shards have no meaning",
                where=f"{where}.replay",
                instead=f"set them on the stream that is replayed, {base.name}",
            )
        return replace(stream, replay=True, base=base.name)
    if base.replay:
        raise MeshError(f"{base.name} is a replay", where=f"{where}.of", instead=f"of: {base.base}")
    if spec.pooled:
        return replace(stream, private=False, shards=None, heirs={}, apart=False, pooled=True)
    rows = _rest(base, taken, f"{where}.rest_of")
    if spec.select is not None:
        rows = selected(spec.select, table, rows, split(table, data), f"{where}.select")
    rows = _filter(rows, spec, table, where)
    if spec.size is not None and base.apart:
        rows = torch.cat(
            [
                draw(own, count_of(spec.size, len(own), f"{where}.size"), None, data.seed, "stream", name, owner)
                for owner, own in base.parts(rows).items()
            ]
        )
        rows = rows.sort().values
    elif spec.size is not None:
        count = count_of(spec.size, len(rows), f"{where}.size")
        rows = draw(rows, count, table.strata if data.stratify else None, data.seed, "stream", name)
    if not len(rows):
        raise MeshError(f"no sample of {base.name} is left", where=where, instead="keep more classes")
    stream.rows = rows
    if spec.shards is not None:
        seed = mix(data.seed, "shards", name)
        if base.apart:
            stream.shards = _within(base, rows, table, spec.shards, seed, f"{where}.shards")
        elif base.shards is not None:
            raise MeshError(f"{base.name} is divided already", where=f"{where}.shards", instead="divide one of the two")
        else:
            stream.shards = shard(rows, table, spec.shards, seed, f"{where}.shards")
        stream.rows = torch.cat(list(stream.shards.values())).sort().values
    elif base.shards is not None and narrowed:
        stream.shards = {agent: own[torch.isin(own, rows)] for agent, own in base.shards.items()}
        empty = [agent for agent, own in stream.shards.items() if not len(own)]
        if empty:
            raise MeshError(f"no sample is left for {', '.join(empty)}", where=where, instead="keep more")
    return stream


def _within(base: Stream, rows: Tensor, table: Table, spec: ShardSpec, seed: int, where: str) -> dict[str, Tensor]:
    """Each agent's part of those of some rows that are its party's, in the order of ``spec.of``."""
    whole = base.parts(rows)
    made: dict[str, Tensor] = {}
    for owner, own in whole.items():
        if agents := [agent for agent in spec.of if base.owner(agent) == owner]:
            made |= shard(own, table, spec.model_copy(update={"of": agents}), mix(seed, owner), where)
    return {agent: made[agent] for agent in spec.of}


def _rest(base: Stream, taken: list[Stream], where: str) -> Tensor:
    """The rows of a stream that others have not ``taken`` from it."""
    for other in taken:
        if other.replay:
            raise MeshError(f"{other.name} is a replay", where=where, instead=f"rest_of: {other.base}")
        if beyond := int((~torch.isin(other.rows, base.rows)).sum()):
            raise MeshError(
                f"{beyond} of the {len(other.rows)} samples of {other.name} are not of {base.name}, so that the two "
                "are not parts of one whole",
                where=where,
                instead=f"streams that are taken from {base.name}, or another `of`",
            )
    rows = base.rows
    if taken:
        rows = rows[~torch.isin(rows, torch.cat([other.rows for other in taken]))]
        if not len(rows):
            names = " and ".join(other.name for other in taken)
            raise MeshError(
                f"nothing of {base.name} is left: all its {len(base.rows)} samples are in {names}",
                where=where,
                instead="a smaller `size` there",
            )
    return rows


def _filter(rows: Tensor, spec: StreamSpec, table: Table, where: str) -> Tensor:
    """Keep the values in `where` and the classes in `only`, less those in `without`."""
    for name, wanted in (spec.where or {}).items():
        if name not in table.columns:
            raise MeshError(
                f"the data have no column {name!r}",
                where=f"{where}.where",
                instead=nearest(name, table.columns, "columns that are kept beside the features"),
            )
        values = table.columns[name]
        for value in wanted:
            if value not in values:
                raise MeshError(
                    f"no sample has {value!r} in column {name!r}",
                    where=f"{where}.where.{name}",
                    instead=nearest(value, sorted(set(values)), "values"),
                )
        here = torch.tensor([values[row] in wanted for row in rows.tolist()], dtype=torch.bool)
        rows = rows[here]
    for key, classes in (("only", spec.only), ("without", spec.without)):
        if classes is None:
            continue
        if table.strata is None:
            missing = "labels" if table.y is None else "classes"
            raise MeshError(f"the data set has no {missing} to choose by", where=f"{where}.{key}")
        beyond = [c for c in classes if not 0 <= c < table.classes]
        if beyond:
            raise MeshError(
                f"no class {beyond[0]}", where=f"{where}.{key}", instead=f"classes 0 .. {table.classes - 1}"
            )
        rows = rows[torch.isin(table.strata[rows], torch.tensor(classes, dtype=torch.int64), invert=key == "without")]
    return rows
