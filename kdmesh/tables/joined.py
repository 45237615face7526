"""The data of a mesh with parties: one table, in which the public samples come first and then each party's own.

Every process has the same rows. Where a party's samples are not, only their number is known: blanks stand for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.errors import MeshError, quoted
from kdmesh.spec.parties import OWN
from kdmesh.streams.table import no_labels
from kdmesh.streams.texts import HIDDEN, Texts
from kdmesh.streams.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.spec import MeshSpec
    from kdmesh.streams.table import Table


def joined(public: Table, parts: Mapping[str, Table | int], spec: MeshSpec) -> Table:
    """One table of public samples and of those of parties, in the order of ``parts``.

    ``parts``: by party, its table, prepared as the public one is, or how many samples it has where they are not here.
    MeshError names the party whose samples are no samples like the public ones.
    """
    if isinstance(public.x, Unread) or public.unread:
        what = "samples of parties stand beside public ones, which are read when they are asked for"
        raise MeshError(what, where="data.dataset", instead="public samples in memory, lazy: false")
    tables = {name: part if isinstance(part, int) else _like(public, part, f"parties.{name}.data")
              for name, part in parts.items()}  # fmt: skip
    sizes = [len(public), *(part if isinstance(part, int) else len(part) for part in tables.values())]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    rows = {name: torch.arange(first, last) for name, first, last in zip(parts, ends, ends[1:], strict=False)}
    here = list(tables.values())
    return replace(
        public,
        x=_samples(public, here),
        y=None if public.y is None else _labels(public.y, here),
        known=None if public.known is None else _numbers(public.known, [_of(part, "known") for part in here]),
        own={
            name: (_numbers(x, [part if isinstance(part, int) else part.own[name][0] for part in here]), made)
            for name, (x, made) in public.own.items()
        },
        columns={
            name: [*values, *(one for part in here for one in _column(part, name))]
            for name, values in public.columns.items()
        },
        official={**public.official, OWN: torch.arange(len(public), ends[-1])},
        elsewhere=_missing(rows, parts),
        owners={agent: rows[name] for name, party in spec.parties.items() if name in rows for agent in party.agents},
        deterministic=public.deterministic and all(isinstance(part, int) or part.deterministic for part in here),
    )


def _like(public: Table, part: Table, where: str) -> Table:
    """A party's table with the classes of the public one; refuses what is not like it."""
    if part.unread:
        what = "samples of a party that are read when they are asked for"
        raise MeshError(what, where=where, instead="samples in memory, lazy: false")
    if part.is_text != public.is_text or (not part.is_text and part.shape != public.shape):
        kinds = ["texts" if one.is_text else f"samples of shape {list(one.shape)}" for one in (part, public)]
        raise MeshError(f"{kinds[0]}, where the public data have {kinds[1]}", where=where, instead="data of one kind")
    if part.features != public.features:
        lacking = [name for name in public.features if name not in part.features]
        what = f"no column {lacking[0]!r}" if lacking else f"columns in another order: {', '.join(part.features[:9])}"
        raise MeshError(
            f"{what}, as the public data have", where=where, instead="the columns of `data`, in their order"
        )
    odd = [name for name in part.official if name != "train"]
    if odd:
        what = f"these samples are divided already, and some are {odd[0]}"
        raise MeshError(what, where=where, instead="samples to learn from alone, each with its label")
    if (part.y is None) != (public.y is None) or part.kind != public.kind:
        kinds = [one.kind or "none" for one in (part, public)]
        raise MeshError(
            f"labels: {kinds[0]}, where the public data have {kinds[1]}", where=where, instead="labels alike"
        )
    return part if part.kind not in ("classes", "indicators") else _classes(public, part, where)


def _classes(public: Table, part: Table, where: str) -> Table:
    """The same with the numbers that the public data give the classes."""
    assert part.y is not None
    if bool(public.labels) != bool(part.labels):
        what = "classes have names in one of these and the public data, and numbers in the other"
        raise MeshError(what, where=where, instead="labels alike")
    if not public.labels:
        if part.classes > public.classes:
            what = f"a class {part.classes - 1}, where the public data have {public.classes} classes"
            raise MeshError(what, where=where, instead="the classes of `data`")
        return part
    if new := [name for name in part.labels if name not in public.labels]:
        what = f"a class {quoted(new[0])} that the public data do not have"
        raise MeshError(what, where=where, instead=f"one of: {', '.join(public.labels[:9])}")
    places = torch.tensor([public.labels.index(name) for name in part.labels])
    if part.kind == "classes":
        return replace(part, y=torch.where(part.y < 0, part.y, places[part.y.clamp_min(0)]))
    wide = part.y.new_zeros(len(part), len(public.labels))
    wide[:, places] = part.y
    return replace(part, y=wide)


def _samples(public: Table, parts: list[Table | int]) -> Tensor | Texts:
    if isinstance(public.x, Texts):
        every = [[HIDDEN] * part if isinstance(part, int) else [*part.texts] for part in parts]
        return Texts([*public.x, *(one for part in every for one in part)])
    return _numbers(public.tensor, [part if isinstance(part, int) else part.tensor for part in parts])


def _of(part: Table | int, name: str) -> Tensor | int:
    return part if isinstance(part, int) else getattr(part, name)


def _numbers(first: Tensor, parts: list[Tensor | int]) -> Tensor:
    """Numbers one after the other, NaN for those that are not here."""
    blank = [first.new_full((one, *first.shape[1:]), torch.nan) if isinstance(one, int) else one for one in parts]
    return torch.cat([first, *blank])


def _labels(first: Tensor, parts: list[Table | int]) -> Tensor:
    own = [no_labels(first, part) if isinstance(part, int) else part.y for part in parts]
    return torch.cat([first, *(one for one in own if one is not None)])  # those that are here have some, as is checked


def _missing(rows: Mapping[str, Tensor], parts: Mapping[str, Table | int]) -> Tensor | None:
    """The rows of parties of whom only the number of samples is known."""
    gone = [rows[name] for name, part in parts.items() if isinstance(part, int)]
    return torch.cat(gone) if gone else None


def _column(part: Table | int, name: str) -> list[str]:
    return [""] * part if isinstance(part, int) else list(part.columns.get(name, [""] * len(part)))
