"""Weights in memory and in files begin at multiples of 64 bytes: elsewhere, a CPU's matrix products round differently.

Transformers reads safetensors by mapping the file, so that where a tensor stands in the file is where it stands in
memory, and one and the same weights would give other bits after they were saved and loaded.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

ALIGNMENT = 64


def own_memory(module: nn.Module) -> None:
    """Copy weights that are views of a file to where torch allocates."""
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data = tensor.data.clone()


def align(file: Path, more: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file anew with its tensors in another order, and ``more`` metadata in its header.

    The format allows no gaps, so the tensors whose size is a multiple of 64 bytes come first, then other matrices, of
    which the first is aligned, and then vectors, which no product reads.
    """
    anew = file.with_name(f"{file.name}.part")
    with file.open("rb") as source, anew.open("wb") as target:
        size = int.from_bytes(source.read(8), "little")
        header: dict[str, Any] = json.loads(source.read(size))
        metadata = {**header.pop("__metadata__", {}), **(more or {})}
        told: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
        at = 0
        order = sorted(header, key=lambda name: (*_place(header[name]), name))
        for name in order:
            begin, end = header[name]["data_offsets"]
            told[name] = {**header[name], "data_offsets": [at, at + end - begin]}
            at += end - begin
        text = json.dumps(told, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        target.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            begin, end = header[name]["data_offsets"]
            source.seek(8 + size + begin)
            _copy(source, target, end - begin)
    shutil.copymode(file, anew)
    anew.replace(file)


def _place(tensor: dict[str, Any]) -> tuple[bool, int, bool]:
    """Aligned sizes first; then what has the wider elements, which must not stand at odd places; matrices first."""
    begin, end = tensor["data_offsets"]
    count = 1
    for side in tensor["shape"]:
        count *= side
    width = (end - begin) // max(count, 1)
    return (end - begin) % ALIGNMENT != 0, -width, len(tensor["shape"]) < 2


def _copy(source: Any, target: Any, size: int, step: int = 2**24) -> None:
    for start in range(0, size, step):
        target.write(source.read(min(step, size - start)))
