"""Kinds of files with named columns, by their names alone; imports nothing that reads them."""

from __future__ import annotations

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
