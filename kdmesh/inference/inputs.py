"""Samples out of a user's file, by the columns that the agent's folder names."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError, nearest
from kdmesh.streams.texts import Sample
from kdmesh.tables import rows as table
from kdmesh.tables.comma import read_csv
from kdmesh.tables.files import read_bytes, read_text
from kdmesh.tables.idx import parse
from kdmesh.tables.lines import read_jsonl
from kdmesh.tables.parquet import read_parquet
from kdmesh.tables.samples import Columns, samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kdmesh.inference.trained import Trained
    from kdmesh.tables.rows import Rows

TABLES = (".csv", ".jsonl", ".parquet")
FORMS = ".csv, .jsonl, .parquet, of texts also .txt (a line each), of arrays .npy and IDX"
ROLES = tuple(one.name for one in fields(Columns))
LEARNED = ("label", "values", "indicators")


@dataclass
class Inputs:
    """Samples ``[N, ...]`` or texts in a file's order; ``rows``: a table's cells; ``at``: where each one stands."""

    path: Path
    x: Tensor | list[Sample]
    rows: Rows | None
    at: list[str]

    def __len__(self) -> int:
        return len(self.at)

    def columns(self) -> list[str]:
        """The columns of the file that make no sample."""
        return [] if self.rows is None else self.rows.columns


def read(path: Path, trained: Trained, named: Mapping[str, str] | None = None) -> Inputs:
    """Read a file's samples as those that an agent learned from; labels may be in it, and are not looked at.

    ``named``: columns by what they are, ``{"text": "body"}``, where this file calls them otherwise than the one that
    was learned. MeshError that names file and line of what is no sample, and the column that is missing.
    """
    kind = _kind(path)
    if path.is_dir():
        raise MeshError(f"{path} is a folder", where="INPUT", instead=FORMS)
    if kind in TABLES:
        reads = _reads(trained, named or {})
        raw = [str(reads[role]) for role in ("messages", "tools") if role in reads]
        rows = _table(path, kind, raw)
        at = [f"{path.name}, {rows.line(row)}" for row in range(len(rows.cells))]
        x = _texts(rows, reads, trained) if trained.is_text else _numbers(rows, trained)
        return Inputs(path, x, rows, at)
    if named:
        one = next(iter(named))
        raise MeshError(f"{path}: a file without columns", where=f"--{one}", instead="without it, or a table")
    if trained.is_text:
        if kind != ".txt":
            raise MeshError(f"{path}: no file of texts", where="INPUT", instead=".csv, .jsonl, .parquet or .txt")
        lines = read_text(path, "INPUT").splitlines()
        _refuse_two(path, trained)
        texts = [_alone(line, f"{path.name}, line {number}", trained) for number, line in enumerate(lines, 1)]
        if not texts:
            raise MeshError(f"{path}: no line", where="INPUT", instead="a text in each line")
        return Inputs(path, texts, None, [one.at for one in texts])
    arrays = _arrays(path, kind, torch.Size(trained.config.input_shape), trained)
    return Inputs(path, arrays, None, [f"{path.name}, row {row}" for row in range(len(arrays))])


def _kind(path: Path) -> str:
    name = Path(path.stem) if path.suffix == ".gz" else path
    return "idx" if "idx" in name.name and "ubyte" in name.name else name.suffix


def _table(path: Path, kind: str, raw: list[str]) -> Rows:
    match kind:
        case ".csv":
            return read_csv(path, "INPUT")
        case ".jsonl":
            return read_jsonl(path, "INPUT", raw)
        case _:
            return read_parquet(path, "INPUT", raw)


def _reads(trained: Trained, named: Mapping[str, str]) -> dict[str, Any]:
    """The columns of a file by what they are: those that were learned from, but for the ``named`` ones."""
    known = {role: column for role, column in trained.config.reads.items() if role in ROLES}
    if trained.is_text and not known:
        known = {"text": "text"}  # of a file of lines, or of Python
    for role in named:
        if role not in known:
            what = f"{trained.config.agent} reads no such column"
            raise MeshError(what, where=f"--{role}", instead=nearest(role, sorted(known), "columns"))
    return {**known, **named}


def _numbers(rows: Rows, trained: Trained) -> Tensor:
    """Features ``[N, F]``, in the order in which they were learned."""
    columns = trained.config.columns
    if not columns:
        count = trained.config.input_shape
        what = f"{trained.config.agent} learned samples of shape {count} without names of columns"
        raise MeshError(what, where="INPUT", instead=".npy, with an array of such samples")
    table.has_columns(rows, *columns)
    found = [rows.numbers(name, "a number in every row: nothing is filled in") for name in columns]
    return torch.tensor(found, dtype=torch.float32).T.contiguous()


def _texts(rows: Rows, reads: Mapping[str, Any], trained: Trained) -> list[Sample]:
    roles = dict(reads)
    if trained.writes and ("prompt" in roles or "messages" in roles):
        roles.pop("text", None)  # the answer, which is what it is to write
    for role in ("spans", "rejected"):
        roles.pop(role, None)  # learned, and not told
    columns = Columns(**{"text": None, **roles})
    table.has_columns(rows, *columns.names())
    return samples_of(rows, columns)


def _refuse_two(path: Path, trained: Trained) -> None:
    """Refuse lines where a sample is more than one text."""
    more = [role for role in trained.config.reads if role in ROLES and role not in ("text", "prompt")]
    if more:
        what = f"{path}: a line is one text, and {trained.config.agent} reads {' and '.join(more)} too"
        raise MeshError(what, where="INPUT", instead="a table with these columns: .csv, .jsonl, .parquet")


def _alone(line: str, at: str, trained: Trained) -> Sample:
    return Sample(prompt=line, at=at) if trained.writes else Sample(line, at=at)


def _arrays(path: Path, kind: str, shape: torch.Size, trained: Trained) -> Tensor:
    """Samples ``[N, ...]`` of a file of numbers; whole numbers stay such, for the module's own scaling."""
    if kind == "idx":
        x = parse(read_bytes(path, "INPUT"), path, 3, "INPUT").unsqueeze(1)
    elif kind == ".npy":
        import numpy as np

        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise MeshError(f"{path}: {error}", where="INPUT", instead="an array that numpy saved") from None
        if array.dtype.kind not in "fiub":
            raise MeshError(f"{path}: an array of {array.dtype}", where="INPUT", instead="numbers")
        x = torch.from_numpy(array)
    else:
        raise MeshError(f"{path}: of no kind that is read", where="INPUT", instead=FORMS)
    if x.dim() == 0 or x.shape[1:] != shape:
        what = f"{path}: samples of shape {list(x.shape[1:])}, where {trained.config.agent} learned {list(shape)}"
        raise MeshError(what, where="INPUT", instead="samples as those that it learned from")
    if x.is_floating_point():
        if not bool(x.isfinite().all()):
            row = int((~x.flatten(1).isfinite().all(1)).nonzero()[0])
            raise MeshError(f"{path}, row {row}: a number that is not finite", where="INPUT", instead="finite numbers")
        return x.float()
    return x if trained.config.scale is not None else x.float()
