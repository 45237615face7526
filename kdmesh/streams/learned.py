"""What weights have learned from, as a record that stands with them: so that none of it becomes a test sample later."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from kdmesh.errors import MeshError
from kdmesh.spec.data import DataSpec
from kdmesh.streams.splits import split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

Record = dict[str, Any]
"""JSON: ``dataset``, ``source``, ``samples``, ``x_sha256``, ``y_sha256``, ``splits`` and ``official``."""

ATTRIBUTE = "kdmesh_learned_from"
"""Where a module that kdmesh gave out carries its records: a list, with None for what is not known."""

LEARNED = "learned_from"
"""Where an agent's folder has its records: in its configuration, and in the header of its weights' file."""

USED = ("train", "validation", "transfer")  # the splits that teach, or choose when to stop
HELD_OUT = {"test": USED, "validation": ("train", "transfer")}  # what must not have taught, by what is measured


def record(table: Table, data: DataSpec) -> Record:
    """Return what identifies a table and its splits: no path and no sample stands in it."""
    return {
        "dataset": data.dataset.name,
        "source": Path(table.source).name,
        "samples": len(table),
        **table.fingerprint,
        "splits": data.model_dump(mode="json", exclude={"dataset"}),
        "official": {name: _runs(rows) for name, rows in table.official.items()},
    }


def in_header(file: Path) -> list[Record | None] | None:
    """Return the records in the header of a weights' file, which stay when it is moved; None where it has none."""
    try:
        with safe_open(file, framework="pt") as opened:
            learned = json.loads((opened.metadata() or {})[LEARNED])
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError):
        return None  # what is no such file is refused where it is read
    return learned if isinstance(learned, list) else None


def overlap(before: Record, table: Table, streams: Mapping[str, Stream]) -> tuple[str, int, int] | None:
    """Return a split that is held out now, how many of its samples a record's bearer may have learned, and of how many.

    None where there are none, or where the record is of other data. Data are the same if their samples are, or their
    labels and the source's name: other columns of one file, say. The same samples with other labels may have been split
    in any way. A damaged record is a ValueError.
    """
    try:
        now = table.fingerprint
        labels = before["y_sha256"] == now["y_sha256"]
        named = labels and table.y is not None and before["source"] == Path(table.source).name not in ("", "torch")
        if before["samples"] != len(table) or not (named or before["x_sha256"] == now["x_sha256"]):
            return None
        if not labels and before["splits"]["stratify"]:
            held = next((name for name in HELD_OUT if name in streams), None)
            return None if held is None else (held, len(streams[held].rows), len(streams[held].rows))
        official = {name: _rows(runs) for name, runs in before["official"].items()}
        was = split(replace(table, official=official), DataSpec.model_validate({"dataset": "any", **before["splits"]}))
    except (KeyError, TypeError, AttributeError, MeshError) as error:
        raise ValueError(f"no record of data: {error}") from None
    for name, used in HELD_OUT.items():
        if name in streams:
            learned = torch.cat([was[part] for part in used if part in was])
            count = int(torch.isin(streams[name].rows, learned).sum())
            if count:
                return name, count, len(streams[name].rows)
    return None


def changes(before: Record, table: Table, data: DataSpec) -> str:
    """Return the settings under which a record's splits come out again: ``data.seed: 0, data.validation: 0.1``."""
    now = record(table, data)["splits"]
    then = {key: value for key, value in before["splits"].items() if now.get(key) != value}
    said = [f"no data.{key}" if value is None else f"data.{key}: {str(value).lower()}" for key, value in then.items()]
    return ", ".join(said) or "the same files and labels"


def _runs(rows: Tensor) -> list[list[int]]:
    """Rows as ``[first, end]`` of every stretch without a gap, ascending."""
    rows = rows.to(torch.int64).sort().values
    if not len(rows):
        return []
    gaps = (rows.diff() != 1).nonzero().flatten() + 1
    return [[int(part[0]), int(part[-1]) + 1] for part in rows.tensor_split(gaps.tolist())]


def _rows(runs: list[list[int]]) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.int64), *(torch.arange(first, end) for first, end in runs)])
