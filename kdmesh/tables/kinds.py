"""Kinds of files with named columns, by their names alone; imports nothing that reads them."""

from __future__ import annotations

import codecs
from pathlib import Path

SAVED = ("dataset_dict.json", "state.json")
"""What a folder has that `save_to_disk` of the `datasets` library made."""
KINDS = (".csv", ".tsv", ".jsonl", ".parquet")


def is_packed(path: Path) -> bool:
    """Whether a file's name says that gzip packed it."""
    return path.suffix.lower() in (".gz", ".tgz")


def kind_of(path: Path) -> str:
    """What a file's name ends in, packed or not."""
    return (Path(path.stem).suffix if is_packed(path) else path.suffix).lower()


def is_table(path: Path) -> bool:
    """Whether a file's name is one of a table."""
    return kind_of(path) in KINDS


def encoding_of(value: str | None) -> str | None:
    """The name of an encoding of texts, None for UTF-8, whose byte-order mark is left out; ValueError for no such."""
    if not value:
        return None
    try:
        known = codecs.lookup(value)
        text = known._is_text_encoding
    except LookupError:
        text = False
    if not text:
        raise ValueError(f"{value!r} is no encoding of text: utf-8, latin-1, cp1252, utf-16 ...")
    return None if known.name in ("utf-8", "utf-8-sig") else value


def delimiter_of(value: str | None) -> str | None:
    """What stands between cells; ValueError for what has another meaning there."""
    if value is not None and value in '"\r\n':
        raise ValueError("a quote or a line break ends cells in another way: ; or |, say, or \\t")
    return value
