"""Images in folders, archives or a table of paths: PNG, JPEG and WebP."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdmesh.errors import MeshError, may_quote, nearest, untold
from kdmesh.streams.host_memory import is_large
from kdmesh.streams.table import Table, no_labels
from kdmesh.tables.archive import Archive, open_archive
from kdmesh.tables.arrow import Arrow, Origin, image_column, is_saved
from kdmesh.tables.class_folders import Listing, around, listed, splits_of
from kdmesh.tables.decoding import Setting
from kdmesh.tables.images import Form, Unreadable, needed, read_image
from kdmesh.tables.kinds import is_table
from kdmesh.tables.parquet import class_names, official, rows_of
from kdmesh.tables.pictures import Pictures
from kdmesh.tables.reading import read_rows
from kdmesh.tables.rows import Rows, apart, bare_of, has_columns, indicators_of, labels_of, values_of

WHERE = "data.dataset.images"
PARTS = ("train", "validation", "test", "transfer")
BARE = "train, without labels"
"""Images of the table of train whose label is empty: the first of `transfer`."""
DROP = "; or bad: drop, to leave such images out"
BAD = 0.5  # of a split's images: who leaves out more has named the wrong files


@dataclass
class Part:
    """One split: its images by name, and each one's class, or the rows of the table that lists them."""

    where: str
    archive: Archive
    names: list[str]
    labels: list[str] | None = None
    rows: Rows | None = None
    declared: Any = None  # what a data set's own features say of its columns
    kept: list[int] = field(default_factory=list)  # of the images, those that are samples
    notes: list[str] = field(default_factory=list)


def images(
    path: str | None = None,
    validation_path: str | None = None,
    test_path: str | None = None,
    transfer_path: str | None = None,
    root: str | None = None,
    image: str | None = None,
    label: str | None = None,
    values: list[str] | None = None,
    indicators: list[str] | None = None,
    classes: int | None = None,
    resize: int | list[int] | None = None,
    mode: str | None = None,
    bad: str = "refuse",
    lazy: bool | None = None,
    workers: int = 0,
    splits: dict[str, str] | None = None,
    hub: str | None = None,
    name: str | None = None,
    revision: str | None = None,
) -> Table:
    """Return images ``[N, channels, height, width]`` with values 0 .. 1, in the sorted order of their names.

    Classes are the folders at the top of ``path``, below those of splits if it has such; or columns of a table of
    paths, in its own order. What has no label, a row of a table whose label is empty too, is the official split
    `transfer`, or, if nothing has one, all the data.
    ``lazy``: they are decoded when a batch asks for them, by ``workers`` processes if there are any.
    """
    needed(f"{WHERE}.{'path' if hub is None else 'hub'}")
    source = path or hub or ""
    height_width = None if resize is None else (resize, resize) if isinstance(resize, int) else (resize[0], resize[1])
    form = Form(height_width, mode)
    files = {"path": path, "validation_path": validation_path, "test_path": test_path, "transfer_path": transfer_path}
    given = {key: Path(file) for key, file in files.items() if file is not None}
    if hub is not None:
        parts = _of_arrow(Origin(hub, (name, revision)), splits, image, f"{WHERE}.hub")
    elif is_saved(Path(source)):
        if len(given) > 1:
            what = f"{source} has splits of its own"
            raise MeshError(what, where=f"{WHERE}.{[*given][1]}", instead="splits: {test: NAME}")
        parts = _of_arrow(Origin(source), splits, image, f"{WHERE}.path")
    elif splits is None:
        parts = _parts(given, root, image or "path")
    else:
        what = f"{source} is no folder of the `datasets` library"
        raise MeshError(what, where=f"{WHERE}.splits", instead="test_path, or folders of splits")
    learned = values or indicators or [label or "label"]
    parts = _apart(parts, learned, classes)
    shape = _shape(parts, form, bad == "drop")
    count = sum(len(part.names) for part in parts.values())
    if lazy is None:
        lazy = is_large(4 * count * math.prod(shape))
    read = {split: _read(part, split, form, shape, bad == "drop", lazy) for split, part in parts.items()}
    y, count, names = _labels(parts, label, values, indicators, classes)
    ends = torch.tensor([len(part.kept) for part in parts.values()]).cumsum(0).tolist()
    own: dict[str, Tensor] = {}
    for (split, part), end in zip(parts.items(), ends, strict=True):
        name, rows = "transfer" if split == BARE else split, torch.arange(end - len(part.kept), end)
        own[name] = torch.cat([own[name], rows]) if name in own else rows
    reads: dict[str, str | list[str]] = {}
    if parts["train"].rows is not None:
        kind = "values" if values else "indicators" if indicators else "label"
        reads = {"image": image or "path", kind: learned if values or indicators else learned[0]}
    return Table(
        _unread(parts, Setting([part.archive for part in parts.values()], form, shape), workers)
        if lazy
        else torch.cat([x for x in read.values() if x is not None]).div_(255),
        y,
        count,
        official=own if len(parts) > 1 else {},
        columns=_columns(parts, {*learned, image or "path"}),
        labels=names,
        source=source,
        reads=reads,
        divided_by=255,
        notes=[note for part in parts.values() for note in part.notes],
        images={"resize": form.resize, "mode": form.mode},
    )


def _parts(files: dict[str, Path], root: str | None, image: str) -> dict[str, Part]:
    """The images of each split, by its name, in the order train, validation, test, transfer."""
    found: dict[str, Part] = {}
    for key, path in files.items():
        name, where = "train" if key == "path" else key.removesuffix("_path"), f"{WHERE}.{key}"
        if is_table(path):
            found[name] = _of_table(read_rows(path, where), path, root, image)
            continue
        archive = open_archive(path, where)
        if key == "path":
            lists = splits_of(archive)
        else:
            inside = around(archive, found["train"].labels or ()) if "train" in found else ""
            lists = {name: listed(archive, inside, labelled=name != "transfer")}
        for split, listing in lists.items():
            if split in found or (split != name and f"{split}_path" in files):
                what = f"{path} has a folder of the split {split}"
                raise MeshError(what, where=f"{WHERE}.{split}_path", instead="one of the two")
            found[split] = Part(where, archive, listing.names, listing.labels, notes=_others(listing))
    return {name: found[name] for name in PARTS if name in found}


def _of_arrow(origin: Origin, splits: dict[str, str] | None, image: str | None, where: str) -> dict[str, Part]:
    """The images of a data set of the library, by split."""
    found = {}
    for part, split in official(origin.splits(where), splits, origin.path, where).items():
        name = splits[part] if splits else part
        column = image_column(split, image, origin.path, f"{WHERE}.image")
        others = split.select_columns([one for one in split.column_names if one != column])
        rows = rows_of(others, f"{origin.path}, split {name}", where) if others.column_names else None
        archive = Arrow(origin, where, name, column, split)
        found[part] = Part(where, archive, archive.names, rows=rows, declared=split)
    return found


def _of_table(rows: Rows, path: Path, root: str | None, image: str) -> Part:
    """The images that a table lists."""
    has_columns(rows, image)
    archive = open_archive(Path(root) if root is not None else path.parent, f"{WHERE}.root")
    names = rows.texts(image)
    for row, name in enumerate(names):
        if not name.strip() or "\0" in name:
            what = f"{rows.at(row, image)}: {name!r} is no path"
            raise MeshError(what, where=rows.where, instead="the path of an image")
    return Part(rows.where, archive, names, rows=rows)


def _apart(parts: dict[str, Part], learned: list[str], classes: int | None) -> dict[str, Part]:
    """The same, but images of train that its table gives no label as a part of their own."""
    train = parts["train"]
    if train.rows is None or not {*learned} <= {*train.rows.columns}:
        return parts
    held = [parts[name].rows for name in ("validation", "test") if name in parts]
    told, pools, notes = apart(
        train.rows, learned, [rows for rows in held if rows is not None and {*learned} <= {*rows.columns}], classes
    )
    if not pools:
        return parts
    bare = bare_of(train.rows, learned)
    names = {flag: [name for name, own in zip(train.names, bare, strict=True) if own is flag] for flag in (True, False)}
    found = {
        **parts,
        "train": replace(train, names=names[False], rows=told),
        BARE: replace(train, names=names[True], rows=pools[0], kept=[], notes=notes),
    }
    return {name: found[name] for name in ("train", "validation", "test", BARE, "transfer") if name in found}


def _others(listing: Listing) -> list[str]:
    if not listing.others:
        return []
    count = f"{len(listing.others):,} files" if len(listing.others) > 1 else "a file"
    return [f"{listing.archive.path}: {count} left out that are no images: first {listing.others[0]}"]


def _shape(parts: dict[str, Part], form: Form, drop: bool) -> tuple[int, ...]:
    """The shape that all images are to have: that of the first, or, where bad ones are left out, of the first good."""
    first: MeshError | None = None
    for part in parts.values():
        for number, name in enumerate(part.names):
            try:
                return read_image(part.archive, name, form, None).shape
            except Unreadable as error:
                first = first or _refused(part, number, error)
            if not drop:
                raise first
    assert first is not None  # there are images
    raise first


def _read(part: Part, name: str, form: Form, shape: tuple[int, ...], drop: bool, lazy: bool) -> Tensor | None:
    """The pixels ``[n, channels, height, width]`` of a split as float32; None where they are read later.

    What is bad is found here where it is to be left out.
    """
    part.kept = list(range(len(part.names)))
    if lazy and not drop:
        return None
    x = None if lazy else torch.empty(len(part.names), *shape)
    part.kept, first = [], ""
    for number, one in enumerate(part.names):
        try:
            pixels = read_image(part.archive, one, form, shape)
        except Unreadable as error:
            refused = _refused(part, number, error)
            if not drop:
                raise refused from None
            first = first or refused.what
            continue
        if x is not None:
            x[len(part.kept)] = torch.from_numpy(pixels)
        part.kept.append(number)
    lost = len(part.names) - len(part.kept)
    if lost > BAD * len(part.names):
        what = f"{part.archive.path}: {lost} of its {len(part.names)} images of {name} cannot be read: first {first}"
        raise MeshError(what, where=part.where, instead="images, most of which can be read")
    if lost:
        part.notes.append(f"{lost} of the {len(part.names)} images of {name} are left out (bad: drop): first {first}")
    return None if x is None else x[: len(part.kept)]


def _refused(part: Part, number: int, error: Unreadable) -> MeshError:
    return MeshError(f"{_at(part, number)}: {error.what}", where=part.where, instead=error.instead + DROP)


def _unread(parts: dict[str, Part], setting: Setting, workers: int) -> Pictures:
    """The images of all splits, to be decoded when they are asked for."""
    every = list(parts.values())
    names = [(number, part.names[at]) for number, part in enumerate(every) for at in part.kept]
    tables = [_Lines.of(part) for part in every]
    starts = [0, *torch.tensor([len(part.kept) for part in every]).cumsum(0).tolist()]
    return Pictures(setting, names, _Places(setting.archives, tables, starts, not may_quote()), WHERE, workers, DROP)


class _Lines(NamedTuple):
    """Where in a table the images of a part are listed, each on its own of ``lines``."""

    table: str
    noun: str
    lines: list[int]

    @classmethod
    def of(cls, part: Part) -> _Lines | None:
        """None where no table lists them."""
        rows = part.rows
        if rows is None or part.declared is not None:
            return None
        return cls(str(rows.path), rows.noun, [rows.lines[at] for at in part.kept])


@dataclass
class _Places:
    """Where an image stands, by its number among all and its name; beside those of tables, the lines that list them."""

    archives: list[Archive]
    tables: list[_Lines | None]
    starts: list[int]
    untold: bool = False  # names of images may be personal: also when a batch asks for one

    def __call__(self, number: int, named: tuple[int, str]) -> str:
        archive, name = named
        with untold() if self.untold else nullcontext():
            at, table = self.archives[archive].at(name), self.tables[archive]
        if table is None:
            return at
        return f"{table.table}, {table.noun} {table.lines[number - self.starts[archive]]}: {at}"


def _at(part: Part, number: int) -> str:
    """Say where an image stands, and the line of a table that lists it."""
    at = part.archive.at(part.names[number])
    if part.declared is not None:
        return at
    return at if part.rows is None else f"{part.rows.path}, {part.rows.line(number)}: {at}"


def _labels(
    parts: dict[str, Part],
    label: str | None,
    values: list[str] | None,
    indicators: list[str] | None,
    classes: int | None,
) -> tuple[Tensor | None, int, list[str]]:
    """Labels of all that are kept, how many classes there are, and names; no label for those of `transfer`."""
    train, pools = parts["train"], [parts[name] for name in (BARE, "transfer") if name in parts]
    told = [part for name, part in parts.items() if name not in (BARE, "transfer")]
    tables = [part.rows for part in told if part.rows is not None]
    if tables and len(tables) < len(told):
        what = "some splits are tables of paths, and others are folders"
        raise MeshError(what, where=f"{WHERE}.path", instead="tables for all, or folders")
    if tables:
        read: Callable[[], tuple[Tensor, int, list[str]]]
        if values or indicators:
            learned = values or indicators or []
            read = lambda: ((values_of if values else indicators_of)(tables, learned), 0, learned)  # noqa: E731
        else:
            column = label or "label"
            learned = [column]
            if label is None and classes is not None and all(column not in rows.columns for rows in tables):
                return None, classes, []
            told_names = class_names(train.declared, column) if train.declared is not None and not classes else None
            read = lambda: labels_of(tables, column, classes, told_names)  # noqa: E731
        for rows in tables:
            has_columns(rows, *learned)
        y, count, names = read()
        ends = torch.tensor([len(rows.cells) for rows in tables]).cumsum(0).tolist()
        own = [torch.tensor(part.kept) + end - len(part.names) for part, end in zip(told, ends, strict=True)]
        y = y[torch.cat(own)]
    else:
        bare = [part for part in told if part.labels is None]
        if len(bare) == len(told) and classes is not None:
            return None, classes, []
        if bare:
            instead = "a folder for each class; for samples without labels, transfer_path, or `classes`"
            raise MeshError(f"{bare[0].archive.path}: no folders of classes", where=bare[0].where, instead=instead)
        names = sorted(set(train.labels or ()))
        if classes is not None and len(names) > classes:
            what = f"{train.archive.path}: {len(names)} folders of classes for {classes} classes"
            raise MeshError(what, where=f"{WHERE}.classes", instead=f"classes: {len(names)}")
        place = {name: number for number, name in enumerate(names)}
        y, count = torch.tensor([_number(part, at, place) for part in told for at in part.kept]), classes or len(names)
    if pools:
        y = torch.cat([y, no_labels(y, sum(len(pool.kept) for pool in pools))])
    return y, count, names


def _number(part: Part, at: int, place: Mapping[str, int]) -> int:
    """The number of an image's class; MeshError for one that train lacks."""
    assert part.labels is not None
    if (name := part.labels[at]) not in place:
        what = f"{part.archive.at(part.names[at])}: {name!r} is no class of train"
        raise MeshError(what, where=part.where, instead=nearest(name, place, "classes"))
    return place[name]


def _columns(parts: dict[str, Part], taken: set[str]) -> dict[str, list[str]]:
    """The path of each image, and of tables the columns that all have and nothing else reads."""
    found = {"path": [PurePosixPath(part.names[at]).as_posix() for part in parts.values() for at in part.kept]}
    tables = [part.rows for part in parts.values()]
    if all(rows is not None for rows in tables):
        shared = [name for name in tables[0].columns if name not in taken and name != "path"]  # type: ignore[union-attr]
        for name in shared:
            if all(rows is not None and name in rows.columns for rows in tables):
                found[name] = [
                    str(part.rows.cells[at][name]) for part in parts.values() for at in part.kept if part.rows
                ]
    return found
