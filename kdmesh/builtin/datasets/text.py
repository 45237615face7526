"""Texts from a file with named columns, or from a Hugging Face data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch

from kdmesh.errors import MeshError, quoted
from kdmesh.streams.host_memory import is_large
from kdmesh.streams.table import Table, no_labels
from kdmesh.streams.texts import Texts, UnreadSamples
from kdmesh.tables.candidates import Candidates, lists_of, relevance_of
from kdmesh.tables.parquet import class_names, official, read_folder, read_hub, rows_of
from kdmesh.tables.reading import is_later, read_rows
from kdmesh.tables.rows import Rows, apart, cell, has_columns, indicators_of, labels_of, values_of
from kdmesh.tables.rows import official as official_rows
from kdmesh.tables.samples import Columns, SamplesLater, samples_of
from kdmesh.tables.unread_files import arrow_rows, rows_later
from kdmesh.tables.unread_rows import UnreadColumn, UnreadRows

WHERE = "data.dataset.text"
NO_TAG = "O"
"""The tag of what stands in no span: the first of the tags."""


def text(
    path: str | None = None,
    validation_path: str | None = None,
    test_path: str | None = None,
    transfer_path: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    hub: str | None = None,
    name: str | None = None,
    revision: str | None = None,
    splits: dict[str, str] | None = None,
    text: str | None = None,
    pair: str | None = None,
    prompt: str | None = None,
    messages: str | None = None,
    tools: str | None = None,
    spans: str | None = None,
    query: str | None = None,
    candidates: str | None = None,
    relevance: str | None = None,
    positive: str | None = None,
    negative: str | None = None,
    rejected: str | None = None,
    label: str | None = None,
    values: list[str] | None = None,
    indicators: list[str] | None = None,
    labels: list[str] | None = None,
    classes: int | None = None,
    licence: str | None = None,
    lazy: bool | None = None,
) -> Table:
    """Return texts, with classes (``label``), ``values``, ``indicators``, tags (``spans``), or neither: then a language
    model's own tokens are what is learned, after the ``prompt`` or as the assistant's turns of ``messages``. A part
    with a ``prompt`` may lack the column of texts: its samples are prompts alone, which is noted. With
    ``query`` samples are lists to rank: ``candidates`` with the ``relevance`` of each, or ``positive`` and ``negative``
    ones. With ``rejected`` there are two answers to each prompt.
    Columns that make no sample are kept where all parts have them; `tools` beside `messages` is what may be called.
    ``lazy``: samples are read when a batch asks for them, and of their rows labels alone are in memory.
    """
    own = "text" if text is None and messages is None and query is None else text
    columns = Columns(own, pair, prompt, messages, spans, tools, query, rejected)
    listed = Candidates(candidates, relevance, positive, negative)
    raw = [*columns.names(), *listed.names()]
    learned = values or indicators or ([label] if label is not None else [])
    declared, source = None, path or hub or ""
    files = {"validation_path": validation_path, "test_path": test_path, "transfer_path": transfer_path}
    later = Later(False if query is not None else lazy, raw, learned)
    if path is not None and not Path(path).is_dir():
        parts = _files({"path": path, **files}, splits, later, delimiter, encoding or "")
    else:
        parts, declared, licence = _library(source, hub, name, revision, splits, files, later, label, licence)
    if messages is not None and tools is None and all("tools" in rows.columns for rows in parts.values()):
        columns = replace(columns, tools="tools")
    told, pools, apart_notes = _labelled(parts, learned, classes)
    every = [*(labelled := list(told.values())), *pools]
    read = _asked(labelled, columns, text is not None, [*listed.names(), *learned])
    read += _asked(pools, columns, text is not None, []) if pools else []
    samples = _texts(every, read)
    y, count, names = None, classes or 0, labels or []
    if label is not None:
        y, count, names = labels_of(labelled, label, classes, labels or (None if classes else declared))
    elif values or indicators:
        y, names = (values_of if values else indicators_of)(labelled, learned), learned
    elif query is not None:
        samples, y = _ranked(every, samples, listed)
    elif spans is not None:
        count = len(names := _tags(every, samples, labels, spans))
    y = y if y is None else torch.cat([y, no_labels(y, len(samples) - len(y))])
    return Table(
        samples,
        y,
        count,
        official=official_rows(told, pools),
        columns=_kept(every, {*raw, *columns.names(), *learned}),
        labels=names,
        licence=licence or "not stated",
        source=source,
        reads=_reads(columns, listed, label, values, indicators) | _written_as(delimiter, encoding),
        notes=[*apart_notes, *_alone(every, read, columns.text)],
    )


def _texts(parts: list[Rows], read: list[Columns]) -> Texts:
    """The samples of each part by its columns."""
    pairs = zip(parts, read, strict=True)
    if isinstance(parts[0].cells, UnreadRows):
        return Texts(UnreadSamples([SamplesLater(rows, own) for rows, own in pairs]))
    return Texts([sample for rows, own in pairs for sample in samples_of(rows, own)])


class Later(NamedTuple):
    """Whether rows are ``lazy``, None: if there are many; columns that are ``raw``, and such as are kept in memory."""

    lazy: bool | None
    raw: list[str]
    keep: list[str]


def _reads(
    columns: Columns, listed: Candidates, label: str | None, values: list[str] | None, indicators: list[str] | None
) -> dict[str, str | list[str]]:
    """Which columns make a sample and its label, by the settings that name them."""
    learned = {"label": label, "values": values, "indicators": indicators}
    every = {**asdict(columns), **listed._asdict(), **learned}
    return {name: column for name, column in every.items() if column}


def _written_as(delimiter: str | None, encoding: str | None) -> dict[str, str | list[str]]:
    return {name: told for name, told in {"delimiter": delimiter, "encoding": encoding}.items() if told}


def _alone(parts: list[Rows], read: list[Columns], text: str | None) -> list[str]:
    """Which parts have prompts alone."""
    bare = [rows for rows, own in zip(parts, read, strict=True) if own.text != text]
    return [f"{rows.path} has no column {text!r}: its {len(rows.cells)} samples are prompts alone" for rows in bare]


def _asked(parts: list[Rows], columns: Columns, named: bool, more: list[str]) -> list[Columns]:
    """The columns of each part: without that of texts where it has prompts and lacks the column.

    ``named``: the file says which column that is, so that one part has it at least. A part without another one, or
    without those that are needed ``more``, is refused.
    """
    there = [columns.text in rows.columns for rows in parts]
    fixed = columns.prompt is None or columns.text is None or (named and not any(there))
    found = [columns if has or fixed else replace(columns, text=None) for has in there]
    for rows, own in zip(parts, found, strict=True):
        has_columns(rows, *own.names(), *more)
    return found


def _refuse(what: str, key: str, instead: str) -> NoReturn:
    raise MeshError(what, where=f"{WHERE}.{key}", instead=instead)


def _library(
    source: str,
    hub: str | None,
    name: str | None,
    revision: str | None,
    splits: dict[str, str] | None,
    files: dict[str, str | None],
    later: Later,
    label: str | None,
    licence: str | None,
) -> tuple[dict[str, Rows], list[str] | None, str | None]:
    """The rows of each part of a data set of the library, the names of its classes, and its licence."""
    where = f"{WHERE}.{'path' if hub is None else 'hub'}"
    for key in (key for key, file in files.items() if file is not None):
        _refuse(f"{source} has splits of its own", key, "splits: {test: NAME}")
    known = read_folder(Path(source), where) if hub is None else read_hub(hub, name, revision, where)
    chosen = official(known, splits, source, where)
    size = sum(split.data.nbytes for split in chosen.values())
    lazy = is_large(4 * size) if later.lazy is None else later.lazy
    parts = {}
    for part, split in chosen.items():
        of = f"{source}, split {part}"
        parts[part] = (
            arrow_rows(split, of, where, later.raw, later.keep) if lazy else rows_of(split, of, where, later.raw)
        )
    declared = class_names(chosen["train"], label) if label else None
    return parts, declared, licence or getattr(chosen["train"].info, "license", "")


def _labelled(
    parts: dict[str, Rows], learned: list[str], classes: int | None
) -> tuple[dict[str, Rows], list[Rows], list[str]]:
    """The rows with labels, by split; those without; and what is to be said of that."""
    told = {name: rows for name, rows in parts.items() if name != "transfer"}
    if not learned:
        return told, [], []
    has_columns(told["train"], *learned)
    held = [rows for name, rows in told.items() if name != "train"]
    train, pools, notes = apart(told["train"], learned, held, classes)
    return {**told, "train": train}, [*pools, *(parts[name] for name in parts if name == "transfer")], notes


def _files(
    files: dict[str, str | None], splits: dict[str, str] | None, later: Later, delimiter: str | None, encoding: str
) -> dict[str, Rows]:
    """The rows of each part, by its name; ``files``: by the setting that names each."""
    if splits is not None:
        _refuse(f"{files['path']} is one file", "splits", "validation_path and test_path, or a folder with splits")
    given = {key: Path(file) for key, file in files.items() if file is not None}
    lazy = is_later(files.values(), later.lazy)
    found = {}
    for key, path in given.items():
        part, where = "train" if key == "path" else key.removesuffix("_path"), f"{WHERE}.{key}"
        if lazy:
            found[part] = rows_later(path, where, later.raw, later.keep, delimiter, encoding)
        else:
            found[part] = read_rows(path, where, later.raw, delimiter, encoding)
    return found


def _kept(parts: list[Rows], taken: set[str]) -> dict[str, Sequence[str]]:
    """The columns that all parts have, as text, without those that are ``taken``."""
    shared = [key for key in parts[0].columns if key not in taken and all(key in rows.columns for rows in parts)]
    if isinstance(parts[0].cells, UnreadRows):
        return {key: UnreadColumn([rows.cells for rows in parts], key, _said) for key in shared}
    return {key: [_said(cells[key]) for rows in parts for cells in rows.cells] for key in shared}


def _said(value: object) -> str:
    return str(cell(value))


def _ranked(parts: list[Rows], samples: Texts, columns: Candidates) -> tuple[Texts, torch.Tensor]:
    """The samples with their candidates, and how relevant each of these is, ``[N, L]``."""
    lists = [one for rows in parts for one in lists_of(rows, columns)]
    made = Texts([replace(one, candidates=tuple(own)) for one, (own, _) in zip(samples, lists, strict=True)])
    return made, relevance_of(lists, parts[0])


def _tags(parts: list[Rows], samples: Texts, labels: list[str] | None, column: str) -> list[str]:
    """`O`, then the tags as given, else those of the first part, sorted; a tag beyond them is a MeshError."""
    train = parts[0]
    first = islice(samples, len(train.cells))
    names = labels if labels is not None else sorted({tag for one in first for *_, tag in one.spans or ()} - {NO_TAG})
    tags = [NO_TAG, *(name for name in names if name != NO_TAG)]
    places = ((rows, row) for rows in parts for row in range(len(rows.cells)))
    for (rows, row), sample in zip(places, samples, strict=True):
        for *_, tag in sample.spans or ():
            if tag not in tags:
                known = "the given labels" if labels is not None else train.path
                what = f"{rows.at(row, column)}: {quoted(tag)} is no tag of {known}"
                raise MeshError(what, where=rows.where, instead=f"tags: {', '.join(tags)}")
    return tags
