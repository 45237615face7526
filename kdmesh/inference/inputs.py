"""Samples out of a user's file, by the columns that the agent's folder names."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError, nearest
from kdmesh.inference.numbers import Unfit, read_array, taken
from kdmesh.streams.texts import Sample
from kdmesh.tables import rows as table
from kdmesh.tables.archive import Archive, is_archive, open_archive
from kdmesh.tables.class_folders import found_in
from kdmesh.tables.decoding import Setting
from kdmesh.tables.files import read_bytes, read_text
from kdmesh.tables.idx import parse
from kdmesh.tables.images import Form, is_image, needed
from kdmesh.tables.kinds import KINDS as TABLES
from kdmesh.tables.pictures import Pictures
from kdmesh.tables.reading import read_rows
from kdmesh.tables.samples import Columns, samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from kdmesh.inference.trained import Trained
    from kdmesh.streams.unread import Unread
    from kdmesh.tables.rows import Rows

FORMS = ".csv, .tsv, .jsonl, .parquet, of texts also .txt (a line each), of arrays .npy and IDX"
BREAK = re.compile(r"\r\n|\n|\r")  # what ends a line of a file, and nothing that may stand in a text
ROLES = tuple(one.name for one in fields(Columns))
LEARNED = ("label", "values", "indicators")


@dataclass
class Inputs:
    """Samples ``[N, ...]`` or texts in a file's order; ``rows``: a table's cells.

    ``where``: what named the file, for errors; ``places``: where in it each sample stands, in what ``noun`` says.
    """

    path: Path
    where: str
    x: Tensor | Unread | list[Sample]
    rows: Rows | None
    places: Sequence[int | str]
    noun: str
    classes: list[str] | None = None  # of images in folders of classes

    def __len__(self) -> int:
        return len(self.places)


def read(path: Path, trained: Trained, named: Mapping[str, str] | None = None, where: str = "INPUT") -> Inputs:
    """Read a file's samples as those that an agent learned from; labels may be in it, and are not looked at.

    ``named``: columns by what they are, ``{"text": "body"}``, where this file calls them otherwise than the one that
    was learned. MeshError that names file and line of what is no sample, and the column that is missing.
    """
    kind = _kind(path)
    if not path.exists():
        raise MeshError(f"no file {path}", where=where, instead="a path from the working folder, or absolute")
    if trained.config.images is not None and (path.is_dir() or is_archive(path) or is_image(path.name)):
        if named:
            raise MeshError(f"{path}: images without columns", where=f"--{next(iter(named))}", instead="without it")
        return _images(path, trained, where)
    if path.is_dir():
        raise MeshError(f"{path} is a folder", where=where, instead=FORMS)
    if kind in TABLES:
        reads = _reads(trained, named or {})
        raw = [str(reads[role]) for role in ("messages", "tools") if role in reads]
        rows = read_rows(path, where, raw, _written(trained, "delimiter"), _written(trained, "encoding") or "")
        if trained.config.images is not None:
            column = str(trained.config.reads.get("image", "path"))
            table.has_columns(rows, column)
            pictures = _pictures(open_archive(path.parent, where), rows.texts(column), trained, where)
            return Inputs(path, where, pictures, rows, rows.lines, rows.noun)
        x = _texts(rows, reads, trained) if trained.is_text else _numbers(rows, trained)
        return Inputs(path, where, x, rows, rows.lines, rows.noun)
    if named:
        one = next(iter(named))
        raise MeshError(f"{path}: a file without columns", where=f"--{one}", instead="without it, or a table")
    if trained.is_text:
        if kind != ".txt":
            raise MeshError(f"{path}: no file of texts", where=where, instead=".csv, .jsonl, .parquet or .txt")
        texts = _lines(path, trained, where)
        return Inputs(path, where, texts, None, range(1, len(texts) + 1), "line")
    arrays = _arrays(path, kind, trained.given_shape, trained, where)
    return Inputs(path, where, arrays, None, range(len(arrays)), "row")


def _written(trained: Trained, how: str) -> str | None:
    """How the files were written that the agent learned from, as far as that is no default."""
    found = trained.config.reads.get(how)
    return found if isinstance(found, str) else None


def _images(path: Path, trained: Trained, where: str) -> Inputs:
    """The images in a folder or an archive, or one alone; and their classes where they are in folders of such."""
    if path.is_file() and not is_archive(path):
        x = _pictures(open_archive(path.parent, where), [path.name], trained, where)
        return Inputs(path, where, x, None, [path.name], "image")
    archive = open_archive(path, where)
    listing = found_in(archive)
    x = _pictures(archive, listing.names, trained, where)
    return Inputs(path, where, x, None, listing.names, "image", listing.labels)


def images_at(paths: list[Path], trained: Trained) -> Pictures:
    """Images of files anywhere, as the agent learned them."""
    return _pictures(open_archive(Path(), "samples"), [str(path) for path in paths], trained, "samples")


def _pictures(archive: Archive, names: list[str], trained: Trained, where: str) -> Pictures:
    """Images as the agent learned them, to be decoded when they are asked for."""
    needed(where)
    own, shape = trained.config.images, tuple(trained.config.input_shape)
    assert own is not None
    setting = Setting([archive], Form(own.resize, own.mode), shape)
    return Pictures(setting, [(0, name) for name in names], lambda number: archive.at(names[number]), where)


def _kind(path: Path) -> str:
    name = Path(path.stem) if path.suffix == ".gz" else path
    return "idx" if "idx" in name.name and name.name.endswith("ubyte") else name.suffix.lower()


def _lines(path: Path, trained: Trained, where: str) -> list[Sample]:
    """A text of each line."""
    lines = BREAK.split(read_text(path, where))
    if not lines[-1]:
        lines.pop()  # the last line is ended, too
    more = [role for role in trained.config.reads if role in ROLES and role not in ("text", "prompt")]
    if more:
        what = f"{path}: a line is one text, and {trained.config.agent} reads {' and '.join(more)} too"
        raise MeshError(what, where=where, instead="a table with these columns: .csv, .jsonl, .parquet")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise MeshError(f"{path}, line {number}: an empty text", where=where, instead="a text in each line")
    return [trained.told(line, f"{path.name}, line {number}") for number, line in enumerate(lines, 1)]


def _reads(trained: Trained, named: Mapping[str, str]) -> dict[str, Any]:
    """The columns of a file by what they are: those that were learned from, but for the ``named`` ones."""
    known = {role: column for role, column in trained.config.reads.items() if role in ROLES}
    for role, column in known.items():
        if not isinstance(column, str):
            what = f"its folder is damaged: found {str(column)[:40]}"
            raise MeshError(what, file=str(trained.root), where=f"reads.{role}", instead="a complete copy of it")
    if trained.is_text and not known:
        known = {"text": "text"}  # of a file of lines, or of Python
    if trained.writes and not {"prompt", "messages"} & {*known, *named}:
        what = f"{trained.config.agent} learned whole texts, and writes what follows a prompt"
        raise MeshError(what, where="--prompt", instead="--prompt COLUMN, or a .txt with a prompt in each line")
    for role in named:
        if role == "prompt" and trained.writes and "messages" not in known:
            continue
        if role not in known:
            what = f"{trained.config.agent} reads no such column"
            raise MeshError(what, where=f"--{role}", instead=nearest(role, sorted(known), "columns"))
    return {**known, **named}


def _numbers(rows: Rows, trained: Trained) -> Tensor:
    """Features ``[N, F]``, in the order in which they were learned."""
    columns = trained.config.columns
    if not columns:
        shape = trained.config.input_shape
        what = f"{rows.path}: {trained.config.agent} learned samples of shape {shape} without names of columns"
        raise MeshError(what, where=rows.where, instead=f".npy, with an array [N, {', '.join(map(str, shape))}]")
    table.has_columns(rows, *columns)
    if trained.prepared is not None:
        return trained.prepared.of_cells(table.cells_of([rows], columns))
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


def _arrays(path: Path, kind: str, shape: torch.Size, trained: Trained, where: str) -> Tensor:
    """Samples ``[N, ...]`` of a file of numbers; whole numbers may stay such, for the module's own scaling."""
    if kind == "idx":
        x = parse(read_bytes(path, where), path, 3, where).unsqueeze(1)
    elif kind == ".npy":
        x = read_array(path, where)
    else:
        raise MeshError(f"{path}: of no kind that is read", where=where, instead=FORMS)
    if x.dim() == 0 or x.shape[1:] != shape:
        what = f"{path}: samples of shape {list(x.shape[1:])}, where {trained.config.agent} learned {list(shape)}"
        raise MeshError(what, where=where, instead=f"an array [N, {', '.join(map(str, shape))}]")
    if not len(x):
        raise MeshError(f"{path}: no samples", where=where, instead="one or more")
    if trained.prepared is not None and trained.prepared.words:
        what = f"{trained.config.agent} reads words: {', '.join(trained.prepared.words[:5])}"
        raise MeshError(f"{path}: {what}", where=where, instead="a table: .csv, .jsonl, .parquet")
    found = taken(x, trained.divided_by, trained.prepared is not None and trained.prepared.fills)
    if isinstance(found, Unfit):
        raise MeshError(f"{path}, row {found.row}: {found.what}", where=where, instead=found.instead)
    return trained.as_seen(found, where)
