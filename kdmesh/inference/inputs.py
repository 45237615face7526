"""Samples out of a user's file, by the columns that the agent's folder names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError, nearest
from kdmesh.inference.numbers import Unfit, read_array, taken
from kdmesh.inference.trained import ROLES, Trained
from kdmesh.plugins import registry
from kdmesh.streams.texts import Sample
from kdmesh.tables import rows as table
from kdmesh.tables.archive import Archive, is_archive, open_archive
from kdmesh.tables.array_files import ARRAYS, read_arrays
from kdmesh.tables.arrow import Arrow, Origin, image_column, is_saved
from kdmesh.tables.candidates import Candidates, candidates_of, lists_of
from kdmesh.tables.class_folders import SPLIT, found_in, splits_of
from kdmesh.tables.decoding import Setting
from kdmesh.tables.files import read_bytes, read_text
from kdmesh.tables.idx import parse
from kdmesh.tables.images import Form, is_image, needed
from kdmesh.tables.kinds import KINDS as TABLES
from kdmesh.tables.parquet import named_classes, read_folder, rows_of
from kdmesh.tables.pictures import Pictures
from kdmesh.tables.reading import read_rows
from kdmesh.tables.samples import Columns, samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from kdmesh.personal.treatment import Treatment
    from kdmesh.streams.unread import Unread
    from kdmesh.tables.rows import Rows

FORMS = (
    ".csv, .tsv, .jsonl, .parquet, of texts also .txt (a line each), of arrays .npy, .npz, .safetensors and IDX, or a "
    "folder that `save_to_disk` made"
)
READ = (*TABLES, *ARRAYS, ".npy", "idx")  # of files in a folder, those that could be meant
TEST = "test"  # the split that is measured, where a file has several
BREAK = re.compile(r"\r\n|\n|\r")  # what ends a line of a file, and nothing that may stand in a text
LISTS = Candidates._fields
WRITTEN, COMMA = ("delimiter", "encoding"), (".csv", ".tsv")  # how some tables are written, and which
LEARNED = ("label", "values", "indicators")
UNTOLD = ("spans", "rejected", "relevance")  # learned, and not told


@dataclass(frozen=True)
class Asked:
    """How a file is read, where its agent's folder does not say.

    ``named``: columns by what they are, ``{"text": "body"}``, where this file calls them otherwise than the one that
    was learned. ``labelled``: what was learned is read, too. ``split``: of a file that has several, by default, where
    labels are read, its test split; ``root``: from where a table's paths of images lead; ``labels``: the file of an
    array's labels; ``delimiter``, ``encoding``: of CSV and TSV, where they are not those that the run read.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = False
    split: str | None = None
    root: Path | None = None
    labels: Path | None = None
    delimiter: str | None = None
    encoding: str | None = None

    def chosen(self, splits: Sequence[str], path: Path, where: str) -> str:
        """Which of a file's splits is read. MeshError where that is not said, or there is no such."""
        if self.split is not None and self.split in splits:
            return self.split
        listed = f"{path}: its splits are {', '.join(splits)}"
        if self.split is not None:
            instead = nearest(self.split, splits, "splits")
            raise MeshError(f"{listed}; no {self.split!r}", where="--split", instead=instead)
        if len(splits) == 1:
            return splits[0]
        if self.labelled and TEST in splits:
            return TEST
        raise MeshError(listed, where=where, instead=f"--split {' or '.join(splits)}")

    def refuse(self, what: str, *names: str) -> None:
        """Raise MeshError where one of these is given, `named` any column: ``what`` says why it means nothing."""
        for name in names:
            if given := getattr(self, name):
                one = next(iter(given)) if name == "named" else name
                raise MeshError(what, where=f"--{one}", instead="without it")


@dataclass
class Inputs:
    """Samples ``[N, ...]`` or texts in a file's order; ``rows``: a table's cells.

    ``where``: what named the file, for errors; ``places``: where in it each sample stands, in what ``noun`` says;
    ``classes``: of images in folders of classes; ``read``: the columns of which samples were made; ``labels``: those
    of arrays, and where they stand; ``lists``: the candidates of each query, and how relevant each is; ``split``: which
    this is of the file, where it has several; ``notes``: what is to be said of the samples.
    """

    path: Path
    where: str
    x: Tensor | Unread | list[Sample]
    rows: Rows | None
    places: Sequence[int | str]
    noun: str
    classes: list[str] | None = None
    read: Sequence[str] = ()
    labels: tuple[Tensor, str] | None = None
    lists: list[tuple[list[str], list[float]]] | None = None
    split: str | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.places)

    def only(self, at: Sequence[int]) -> Inputs:
        """Some of these texts, by their numbers."""
        assert isinstance(self.x, list)
        rows, lists = self.rows, self.lists
        if rows is not None:
            rows = replace(rows, lines=[rows.lines[one] for one in at], cells=[rows.cells[one] for one in at])
        some = [self.x[one] for one in at], [self.places[one] for one in at]
        return replace(
            self, x=some[0], places=some[1], rows=rows, lists=None if lists is None else [lists[one] for one in at]
        )


def read(path: Path, trained: Trained, asked: Asked | None = None, where: str = "INPUT") -> Inputs:
    """Read a file's samples as those that an agent learned from, without the personal data that these lacked.

    MeshError that names file and line of what is no sample, and the column that is missing.
    """
    asked = asked or Asked()
    found = _found(path, trained, asked, where)
    if (personal := trained.personal) is None or not isinstance(found.x, list):
        return found
    return _without_personal(found, personal, asked)


def _without_personal(found: Inputs, personal: Treatment, asked: Asked) -> Inputs:
    """The samples with their personal data replaced. Where samples with such were left out, they are not measured."""
    assert isinstance(found.x, list)
    treated = personal.samples(found.x)
    holds = [number for number, (_, parts) in enumerate(treated) if parts]
    if not holds:
        return found
    what = f"personal data, as it looked for in what it learned from, in {len(holds):,} of {len(found):,} texts"
    if personal.replacing is not None:
        note = f"{what}: replaced as there, and places in a text are of what is left"
        return replace(found, x=[one for one, _ in treated], notes=[*found.notes, note])
    if not asked.labelled:
        return replace(found, notes=[*found.notes, f"{what}: such were left out there, and are answered here"])
    left = found.only([number for number in range(len(found)) if number not in {*holds}])
    return replace(left, notes=[*left.notes, f"{what}: left out, as there"])


def _found(path: Path, trained: Trained, asked: Asked, where: str) -> Inputs:
    kind = _kind(path)
    if not path.exists():
        raise MeshError(f"no file {path}", where=where, instead="a path from the working folder, or absolute")
    images = trained.config.images is not None
    if path.is_dir() and is_saved(path):
        asked.refuse(f"{path}: a folder that `save_to_disk` made has its own", "root", "labels", *WRITTEN)
        return _saved(path, trained, asked, where)
    if images and (path.is_dir() or is_archive(path) or is_image(path.name)):
        asked.refuse(f"{path}: images without columns", "named", "root", "labels", *WRITTEN)
        return _images(path, trained, asked, where)
    if path.is_dir():
        files = sorted(one.name for one in path.iterdir() if _kind(one) in READ)
        instead = f"a file of it: {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}" if files else FORMS
        raise MeshError(f"{path} is a folder", where=where, instead=instead)
    if kind in TABLES:
        asked.refuse(f"{path}: a table", "split", "labels")
        if kind not in COMMA:
            asked.refuse(f"{path}: no CSV", *WRITTEN)
        return _of_rows(path, _rows(path, trained, asked, where), trained, asked, where)
    asked.refuse(f"{path}: a file without columns", "named", "root", *WRITTEN)
    if trained.is_text:
        asked.refuse(f"{path}: texts", "split", "labels")
        if kind != ".txt":
            instead = ".csv, .tsv, .jsonl, .parquet, .txt, or a folder that `save_to_disk` made"
            raise MeshError(f"{path}: no file of texts", where=where, instead=instead)
        texts = _lines(path, trained, asked.labelled, where)
        return Inputs(path, where, texts, None, range(1, len(texts) + 1), "line")
    return _arrays(path, kind, trained, asked, where)


def _rows(path: Path, trained: Trained, asked: Asked, where: str) -> Rows:
    """The rows of a table."""
    written = asked.delimiter or _written(trained, "delimiter"), asked.encoding or _written(trained, "encoding") or ""
    rows, personal = read_rows(path, where, _raw(trained, asked), *written), trained.personal
    if personal is None or trained.is_text:
        return rows  # texts are treated as samples
    number = rows.number
    cells = [{name: personal.cell(name, value, number) for name, value in one.items()} for one in rows.cells]
    return replace(rows, cells=cells)


def _raw(trained: Trained, asked: Asked) -> list[str]:
    """The columns of which samples of texts are made: some hold lists."""
    return [*map(str, _reads(trained, asked).values())] if trained.is_text else []


def _of_rows(path: Path, rows: Rows, trained: Trained, asked: Asked, where: str) -> Inputs:
    """The samples of a table."""
    if trained.config.images is not None:
        if odd := [role for role in asked.named if role != "image"]:
            raise MeshError(f"{path}: paths of images", where=f"--{odd[0]}", instead="--image COLUMN")
        column = asked.named.get("image") or str(trained.config.reads.get("image", "path"))
        _has_columns(rows, trained, [column])
        root = path.parent if asked.root is None else asked.root
        pictures = _pictures(open_archive(root, where), rows.texts(column), trained, where)
        return Inputs(path, where, pictures, rows, rows.lines, rows.noun, read=[column])
    if trained.is_text:
        asked.refuse(f"{path}: no images", "root")
        return _texts(path, rows, trained, asked, where)
    asked.refuse(f"{trained.config.agent} reads no such column", "named")
    asked.refuse(f"{path}: no images", "root")
    x, notes = _numbers(rows, trained)
    return Inputs(path, where, x, rows, rows.lines, rows.noun, read=trained.config.columns, notes=notes)


def _written(trained: Trained, how: str) -> str | None:
    """How the files were written that the agent learned from, as far as that is no default."""
    found = trained.config.reads.get(how)
    return found if isinstance(found, str) else None


def _saved(path: Path, trained: Trained, asked: Asked, where: str) -> Inputs:
    """The samples of a split of a folder that `save_to_disk` made.

    Classes that it declares go by their names, but where an agent learned numbers without.
    """
    known = read_folder(path, where)
    name = asked.chosen([*known], path, where)
    split, source, several = known[name], f"{path}, split {name}", name if len(known) > 1 else None

    def rows(part: Any, raw: Sequence[str] = ()) -> Rows:
        found = rows_of(part, source, where, raw)
        return named_classes(found, split) if trained.config.labels else found

    if trained.config.images is None:
        return replace(_of_rows(path, rows(split, _raw(trained, asked)), trained, asked, where), split=several)
    learned = trained.config.reads.get("image")
    wanted = asked.named.get("image") or (learned if learned in split.column_names else None)
    column = image_column(split, wanted if wanted is None else str(wanted), str(path), where)
    others = split.select_columns([one for one in split.column_names if one != column])
    cells = rows(others) if others.column_names else None
    archive = Arrow(Origin(str(path)), where, name, column, split)
    pictures = _pictures(archive, archive.names, trained, where)
    return Inputs(path, where, pictures, cells, range(len(archive.names)), "row", read=[column], split=several)


def _images(path: Path, trained: Trained, asked: Asked, where: str) -> Inputs:
    """The images in a folder or an archive, or one alone; and their classes where they are in folders of such.

    All of them, whatever their folders are called, unless a split is asked for, or labels, which are of one.
    """
    if path.is_file() and not is_archive(path):
        asked.refuse(f"{path}: one image", "split")
        x = _pictures(open_archive(path.parent, where), [path.name], trained, where)
        return Inputs(path, where, x, None, [path.name], "image")
    archive = open_archive(path, where)
    listing, split = found_in(archive), None
    if asked.labelled or asked.split is not None:
        parts = splits_of(archive, trained.names)
        named = asked.split if asked.split is None else SPLIT.get(asked.split.lower(), asked.split)
        name = replace(asked, split=named).chosen([*parts], path, where)
        split = name if len(parts) > 1 else None
        listing = parts[name]
    x = _pictures(archive, listing.names, trained, where)
    return Inputs(path, where, x, None, listing.names, "image", listing.labels, split=split)


def images_at(paths: list[Path], trained: Trained) -> Pictures:
    """Images of files anywhere, as the agent learned them."""
    return _pictures(open_archive(Path(), "samples"), [str(path) for path in paths], trained, "samples")


def _pictures(archive: Archive, names: list[str], trained: Trained, where: str) -> Pictures:
    """Images as the agent learned them, to be decoded when they are asked for."""
    needed(where)
    own, shape = trained.config.images, tuple(trained.config.input_shape)
    assert own is not None
    setting = Setting([archive], Form(own.resize, own.mode), shape)
    return Pictures(setting, [(0, name) for name in names], lambda number, named: archive.at(named[1]), where)


def _kind(path: Path) -> str:
    name = Path(path.stem) if path.suffix == ".gz" else path
    return "idx" if "idx" in name.name and name.name.endswith("ubyte") else name.suffix.lower()


def _lines(path: Path, trained: Trained, labelled: bool, where: str) -> list[Sample]:
    """A text of each line; of a language model that learned pieces of files, such pieces, where these are measured."""
    whole, reads = read_text(path, where), trained.config.reads
    if labelled and trained.writes and (size := reads.get("characters")) is not None:
        if not (isinstance(size, str) and size.isdecimal() and int(size)):
            what = f"its folder is damaged: found {str(size)[:40]}"
            raise MeshError(what, file=str(trained.root), where="reads.characters", instead="a complete copy of it")
        starts = range(0, len(whole), int(size))
        return [Sample(whole[at : at + int(size)], at=f"{path.name}, characters {at} on") for at in starts]
    lines = BREAK.split(whole)
    if not lines[-1]:
        lines.pop()  # the last line is ended, too
    told = ("text",) if trained.tags or (labelled and trained.writes) else ("text", "prompt")
    more = [role for role in reads if role in ROLES and role not in told and (labelled or role not in UNTOLD)]
    if more or (labelled and trained.tags):
        what = f"{path}: a line is one text, and {trained.config.agent} reads {' and '.join(more) or 'spans'} too"
        raise MeshError(what, where=where, instead="a table with these columns: .csv, .jsonl, .parquet")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise MeshError(f"{path}, line {number}: an empty text", where=where, instead="a text in each line")
    places = [f"{path.name}, line {number}" for number in range(1, len(lines) + 1)]
    if labelled and trained.writes:
        return [Sample(line, at=at) for line, at in zip(lines, places, strict=True)]
    return [trained.told(line, at) for line, at in zip(lines, places, strict=True)]


def _reads(trained: Trained, asked: Asked) -> dict[str, Any]:
    """The columns of a file by what they are: those that were learned from, but for those that it calls otherwise."""
    named, known = asked.named, trained.reads
    if trained.ranks and "candidates" not in known and not asked.labelled:
        known["candidates"] = "candidates"  # which of them are positive nobody knows
    if trained.writes and not asked.labelled and not {"prompt", "messages"} & {*known, *named}:
        what = f"{trained.config.agent} learned whole texts, and writes what follows a prompt"
        raise MeshError(what, where="--prompt", instead="--prompt COLUMN, or a .txt with a prompt in each line")
    for role in named:
        if role == "prompt" and trained.writes and "messages" not in known:
            continue
        if role not in known:
            what = f"{trained.config.agent} reads no such column"
            flag = "label" if role in UNTOLD else role
            raise MeshError(what, where=f"--{flag}", instead=nearest(role, sorted(known), "columns"))
    return {**known, **named}


def _numbers(rows: Rows, trained: Trained) -> tuple[Tensor, list[str]]:
    """Features ``[N, F]``, in the order in which they were learned, and what is to be said of them."""
    columns = trained.config.columns
    if not columns:
        shape = trained.config.input_shape
        what = f"{rows.path}: {trained.config.agent} learned samples of shape {shape} without names of columns"
        raise MeshError(what, where=rows.where, instead=f".npy, with an array {trained.wanted}")
    _has_columns(rows, trained, columns)
    if trained.prepared is not None:
        cells = table.cells_of([rows], columns)
        return trained.prepared.of_cells(cells), trained.prepared.empty(cells, str(rows.path))
    found = [rows.numbers(name, "a number in every row: nothing is filled in") for name in columns]
    return torch.tensor(found, dtype=torch.float32).T.contiguous(), []


def _texts(path: Path, rows: Rows, trained: Trained, asked: Asked, where: str) -> Inputs:
    """Samples of texts, with what was learned of them where it is asked for."""
    roles = _reads(trained, asked)
    if not asked.labelled:
        if trained.writes:
            roles.pop("text", None)  # the answer, which is what it is to write
        roles = {role: column for role, column in roles.items() if role not in UNTOLD}
    elif "rejected" in roles and not compares(trained):
        roles.pop("rejected")
    elif trained.config.writes is not None and "prompt" in roles and roles.get("text") not in rows.columns:
        roles.pop("text", None)  # prompts alone, of which what is written is measured
    listed = Candidates(**{role: roles.pop(role, None) for role in LISTS})
    columns = Columns(**{"text": None, **roles})
    _has_columns(rows, trained, [*columns.names(), *listed.names()])
    samples, lists = samples_of(rows, columns), None
    if trained.tags and not asked.labelled:
        samples = [replace(one, spans=()) for one in samples]
    if trained.ranks and asked.labelled:
        lists = lists_of(rows, listed)
        samples = [replace(one, candidates=tuple(own)) for one, (own, _) in zip(samples, lists, strict=True)]
    elif trained.ranks:
        assert listed.candidates is not None
        own = candidates_of(rows, listed.candidates)
        samples = [replace(one, candidates=tuple(texts)) for one, texts in zip(samples, own, strict=True)]
    read = [*columns.names(), *listed.names()]
    return Inputs(path, where, samples, rows, rows.lines, rows.noun, read=read, lists=lists)


def _has_columns(rows: Rows, trained: Trained, names: Sequence[str]) -> None:
    """Refuse a table that lacks any of the columns which an agent reads."""
    if missing := [name for name in names if name not in rows.columns]:
        noun = "column" if len(missing) == 1 else "columns"
        lacking = f"{rows.path}: no {noun} {', '.join(map(repr, missing))}"
        what = f"{lacking}, which {trained.config.agent} reads; it reads {', '.join(names)}"
        raise MeshError(what, where=rows.where, instead=nearest(missing[0], rows.columns, "the file's columns"))


def compares(trained: Trained) -> bool:
    """Whether any metric of its run is of two answers."""
    names = [next(iter(one)) if isinstance(one, dict) else one for one in trained.config.metrics]
    return any("pairs" in registry().find("metrics", str(name), "metrics").needs for name in names)


def _arrays(path: Path, kind: str, trained: Trained, asked: Asked, where: str) -> Inputs:
    """Samples ``[N, ...]`` of a file of numbers, and labels; whole numbers may stay such, for the module's scaling."""
    labels, beside, split = None, asked.labels, None
    if kind in ARRAYS:
        x, labels, split = _of_named(path, asked, where)
    else:
        asked.refuse(f"{path}: one array", "split")
        x = _array(path, kind, 3, where)
        x = x.unsqueeze(1) if kind == "idx" else x
        twin = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
        if beside is None and asked.labelled and kind == "idx" and twin != path and twin.is_file():
            beside = twin
    if beside is not None:
        if labels is not None:
            raise MeshError(f"{path} has labels of its own", where="--labels", instead="without it")
        labels = _array(beside, _kind(beside), 1, "--labels"), str(beside)
    if x.dim() == 0 or not trained.fits(x.shape):
        what = f"{path}: samples of shape {list(x.shape[1:])}, where {trained.config.agent} learned"
        raise MeshError(f"{what} {list(trained.given_shape)}", where=where, instead=f"an array {trained.wanted}")
    if not len(x):
        raise MeshError(f"{path}: no samples", where=where, instead="one or more")
    if trained.prepared is not None and trained.prepared.words:
        what = f"{trained.config.agent} reads words: {', '.join(trained.prepared.words[:5])}"
        raise MeshError(f"{path}: {what}", where=where, instead="a table: .csv, .jsonl, .parquet")
    found = taken(x, trained.divided_by, trained.prepared is not None and trained.prepared.fills)
    if isinstance(found, Unfit):
        raise MeshError(f"{path}, row {found.row}: {found.what}", where=where, instead=found.instead)
    seen = trained.as_seen(found, where)
    return Inputs(path, where, seen, None, range(len(seen)), "row", labels=labels, split=split)


def _array(path: Path, kind: str, axes: int, where: str) -> Tensor:
    """One array of a file; ``axes``: of one in the form of IDX."""
    if kind == "idx":
        return parse(read_bytes(path, where), path, axes, where)
    if kind == ".npy":
        return read_array(path, where)
    raise MeshError(f"{path}: of no kind that is read", where=where, instead=FORMS if axes > 1 else ".npy or IDX")


def _of_named(path: Path, asked: Asked, where: str) -> tuple[Tensor, tuple[Tensor, str] | None, str | None]:
    """The samples of a split in a file of named arrays, and their labels: `x` and `y`, or `x_test` and `y_test`.

    With the name of the split, where there are several.
    """
    found = read_arrays(path, where)
    splits = {"train" if name == "x" else name[2:]: name for name in found if name == "x" or name.startswith("x_")}
    if not splits:
        what = f"{path}: arrays {', '.join(found)}"
        raise MeshError(what, where=where, instead="an array x [N, ...], and labels y")
    split = asked.chosen([*splits], path, where)
    name = splits[split]
    own = f"y{name[1:]}"
    labels = (found[own], f"{path}: {own}") if own in found and asked.labelled else None
    return found[name], labels, split if len(splits) > 1 else None
