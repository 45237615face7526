"""Queries with their candidates, of JSON lines: vectors as they are, texts as counts of their words.

Words are counted in so many columns, by a hash of each: Weinberger, Dasgupta, Langford, Smola and Attenberg, "Feature
Hashing for Large Scale Multitask Learning", 2009, without its signs. The order of words is lost but for short runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.streams.table import Table
from kdmesh.tables.candidates import mixed, relevance
from kdmesh.tables.files import memory_limit
from kdmesh.tables.lines import read_jsonl
from kdmesh.tables.rows import Rows, number_of, shown

WORD = re.compile(r"[^\W_]+")
QUERY, POSITIVES, NEGATIVES, CANDIDATES, LABELS = FIELDS = ("query", "positives", "negatives", "candidates", "labels")
FORM = '{"query": ..., "positives": [...], "negatives": [...]}, or {"query": ..., "candidates": [...], "labels": [...]}'
SETTING = "data.dataset.lists."


@dataclass
class Entry:
    """A query, its candidates, and how relevant each one is."""

    query: Any
    candidates: list[Any]
    labels: list[float]


def lists(
    path: str,
    validation_path: str | None = None,
    test_path: str | None = None,
    dimensions: int = 256,
    ngrams: int = 1,
) -> Table:
    """Return lists ``[N, 1 + L, D]``, the query first, and how relevant each candidate is, ``[N, L]``.

    L is that of the longest list; shorter ones end in zeros, with labels of -1. Of texts D is ``dimensions``, and what
    is counted are runs of up to ``ngrams`` words, in lower case, divided so that their squares sum to 1. Positives and
    negatives are mixed, so that a place in the list tells nothing. Other fields of the lines are kept as columns.
    """
    given = {"train": path, "validation": validation_path, "test": test_path}
    files = {
        name: read_jsonl(Path(file), SETTING + ("path" if name == "train" else f"{name}_path"), raw=FIELDS)
        for name, file in given.items()
        if file is not None
    }
    entries = {name: [_entry(rows, row) for row in range(len(rows.cells))] for name, rows in files.items()}
    every = [entry for part in entries.values() for entry in part]
    longest = max(len(entry.candidates) for entry in every)
    vectors = isinstance(every[0].query, list)
    for field, value, usual in (("dimensions", dimensions, 256), ("ngrams", ngrams, 1)):
        if vectors and value != usual:
            raise MeshError(
                "words are counted so, and these are vectors", where=SETTING + field, instead="leave it out"
            )
    width = len(every[0].query) if vectors else dimensions
    _fits(len(every) * (1 + longest) * width * 4, longest, files["train"])
    x = torch.zeros(len(every), 1 + longest, width)
    y = torch.full((len(every), longest), -1.0)
    at = 0
    official: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}  # of each text, which may stand in many lists
    for name, part in entries.items():
        official[name] = torch.arange(at, at + len(part))
        for row, entry in enumerate(part):
            for place, item in enumerate((entry.query, *entry.candidates)):
                field = QUERY if not place else "candidates"
                if isinstance(item, str) and item in counts:
                    x[at, place] = counts[item]
                    continue
                made = _vector(files[name], row, field, item, vectors, width, ngrams)
                if isinstance(item, str):
                    counts[item] = made
                x[at, place] = made
            y[at, : len(entry.labels)] = torch.tensor(entry.labels)
            at += 1
    texts = {name: rows.columns for name, rows in files.items()}
    more = [column for column in texts["train"] if column not in FIELDS and all(column in t for t in texts.values())]
    return Table(
        x,
        y,
        classes=0,
        official={name: rows for name, rows in official.items() if name != "train"},
        columns={column: [text for rows in files.values() for text in rows.texts(column)] for column in more},
        source=path,
    )


def _fits(size: int, longest: int, rows: Rows) -> None:
    if size > memory_limit():
        raise MeshError(
            f"{rows.path}: lists of up to {longest} candidates would take {size:,} bytes, and this machine takes "
            f"{memory_limit():,}",
            where=rows.where,
            instead="fewer `dimensions`, shorter lists, or fewer of them",
        )


def _entry(rows: Rows, row: int) -> Entry:
    """What stands on a line; MeshError where it is not a list."""
    cells = rows.cells[row]
    for fields in ((POSITIVES, NEGATIVES), (CANDIDATES, LABELS)):
        if all(field in cells for field in (QUERY, *fields)):
            break
    else:
        raise MeshError(f"{rows.path}, {rows.line(row)}: fields {', '.join(cells)}", where=rows.where, instead=FORM)
    for field in fields:
        if not isinstance(cells[field], list):
            _refuse(rows, row, field, f"{shown(cells[field])} is not a list", FORM)
    if fields == (POSITIVES, NEGATIVES):
        entry = Entry(cells[QUERY], *mixed(cells[POSITIVES], cells[NEGATIVES], row))
    else:
        entry = Entry(cells[QUERY], cells[CANDIDATES], [_label(rows, row, label) for label in cells[LABELS]])
    if len(entry.candidates) != len(entry.labels):
        what = f"{len(entry.labels)} labels for {len(entry.candidates)} candidates"
        _refuse(rows, row, LABELS, what, "a label for each candidate")
    if not entry.candidates:
        _refuse(rows, row, fields[0], "a query without a candidate", "one or more")
    return entry


def _label(rows: Rows, row: int, label: Any) -> float:
    found = relevance(label)
    if found is None:
        _refuse(rows, row, LABELS, f"{shown(label)} is not a relevance", "0, or a number above 0 for what is")
    return found


def _vector(rows: Rows, row: int, field: str, item: Any, numbers: bool, width: int, ngrams: int) -> Tensor:
    """One text's or one vector's values ``[D]``, not all 0: a candidate of zeros is none."""
    if not numbers:
        if not isinstance(item, str):
            _refuse(rows, row, field, f"{shown(item)} is not a text, as the first query is", "texts, or vectors, alone")
        counted = hashed(item, width, ngrams)
        if not counted.any():
            _refuse(rows, row, field, f"{shown(item)} has no word", "a text with a letter or a digit")
        return counted
    fine = isinstance(item, list) and len(item) == width
    found = [None if isinstance(one, bool) else number_of(one) for one in item] if fine else [None]
    if None in found:
        _refuse(rows, row, field, f"{shown(item)} are not {width} numbers, as the first query has", "equal vectors")
    values = torch.tensor(found, dtype=torch.float32)
    if not values.isfinite().all() or not values.any():
        _refuse(rows, row, field, f"{shown(item)} is not finite, or all zeros", "finite numbers, not all of them 0")
    return values


def hashed(text: str, dimensions: int, ngrams: int = 1) -> Tensor:
    """Counts ``[dimensions]`` of a text's words and runs of up to ``ngrams`` words, of length 1; zeros without any."""
    words = WORD.findall(text.lower())
    runs = [
        " ".join(words[start : start + size]).encode()
        for size in range(1, ngrams + 1)
        for start in range(len(words) - size + 1)
    ]
    columns = [int.from_bytes(blake2b(run, digest_size=8).digest(), "big") % dimensions for run in runs]
    found = torch.bincount(torch.tensor(columns, dtype=torch.int64), minlength=dimensions).float()
    return found / found.norm().clamp_min(1)


def _refuse(rows: Rows, row: int, field: str, what: str, instead: str) -> NoReturn:
    raise MeshError(f"{rows.path}, {field!r}, {rows.line(row)}: {what}", where=rows.where, instead=instead)
