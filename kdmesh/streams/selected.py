"""A selection: the samples that ``kdmesh select`` chose, in a file that a later mesh makes a stream of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError
from kdmesh.files import read

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.table import Table

FORMAT = 1
MOST = 2**28  # bytes of a file that are read
HELD_OUT = ("test", "validation")
AGAIN = "kdmesh select, on these data"


def read_selection(path: Path) -> dict[str, Any]:
    """A selection as it was written. MeshError for a file that is none, or of a later version."""
    try:
        told = json.loads(read(path, most=MOST))
        version, samples = told["kdmesh_selection"], told["samples"]
        good = isinstance(version, int) and all(type(one["id"]) is int and one["id"] >= 0 for one in samples)
        good &= isinstance(told["of"], str) and isinstance(told["data"]["x_sha256"], str)
    except (KeyError, TypeError, ValueError, RecursionError):
        version, good = 0, False
    if good and version > FORMAT:
        what = f"a selection of format {version}, and this kdmesh reads format {FORMAT}"
        raise MeshError(what, file=str(path), instead="the kdmesh that wrote it, or a newer one")
    if not good or version < 1 or not samples:
        raise MeshError("is no selection of samples", file=str(path), instead="a file that `kdmesh select` wrote")
    return dict(told)


def selected(path: str, table: Table, rows: Tensor, splits: dict[str, Tensor], where: str) -> Tensor:
    """The rows of a stream that a selection names, ascending int64.

    ``rows``: those of the stream; ``splits``: those of the data's splits, by name. MeshError where the data are not
    those that it was made of, or where a sample of it is not in the stream.
    """
    told = read_selection(Path(path))
    for name, words in (("x_sha256", "samples"), ("y_sha256", "labels")):
        if told["data"].get(name) != table.fingerprint[name]:
            what = f"these data have other {words} than those that it was chosen from"
            raise MeshError(what, where=where, file=path, instead=AGAIN)
    ids = torch.tensor(sorted({one["id"] for one in told["samples"]}), dtype=torch.int64)
    beyond = ids[~torch.isin(ids, rows)]
    if len(beyond):
        held = [name for name in HELD_OUT if name in splits and bool(torch.isin(beyond, splits[name]).any())]
        here = f", and some are in {' and '.join(held)}" if held else ""
        raise MeshError(
            f"{len(beyond)} of its {len(ids)} samples are not in this stream's `of`{here}: the first is sample "
            f"{int(beyond[0])}",
            where=where, file=path, instead=f"the splits and the data seed that it was made with, or {AGAIN}",
        )  # fmt: skip
    return ids
