"""The store's file format, measured: safetensors, as it is used, beside Arrow.

``python benchmarks/store.py [--rows N] [--width D] [--repeat R]`` writes N rows of D float32 values in both formats
into a temporary folder, and prints medians of CPU time of one thread, which does not depend on who else is at work:
writing (without the wait for the disk), opening, a gather of 256 rows at random, and all rows in order. Of the store's
files the sum is made as they are written, and checked as they are opened; Arrow files have none. Arrow is read in its
two ways: by its own ``take``, and as one NumPy array over the mapped file, which needs a file of a single batch. What a
reader's memory holds is measured by ``tests/store/resident_memory.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch

from kdmesh.store import shards
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.shards import Shard

GATHER = 256
ENTRY = "0" * 64


def timed(call: Callable[[], object], repeat: int) -> float:
    """The median of several calls, in CPU seconds."""
    found = []
    for _ in range(repeat):
        begin = process_time()
        call()
        found.append(process_time() - begin)
    return median(found)


class Ours:
    """A shard of the store."""

    name = "safetensors, mapped"

    def __init__(self, folder: Path, rows: np.ndarray, values: torch.Tensor) -> None:
        self.folder, self.rows, self.values = folder, rows, values
        self.about = {"entry": ENTRY, "fingerprint": Fingerprint.here().record()}

    def write(self) -> None:
        self.path = self.folder / shards.write(
            self.folder, self.rows, {"v": self.values}, None, None, self.about, anew=True
        )

    def open(self) -> None:
        self.shard = Shard(self.path, ENTRY)

    def sum(self) -> None:
        hashlib.sha256(self.path.read_bytes())

    def gather(self, places: np.ndarray) -> torch.Tensor:
        return self.shard.take("v", places)


class Arrow:
    """An Arrow file: digests as binary of a fixed size, values as lists of a fixed size."""

    name = "Arrow, take"

    def __init__(self, folder: Path, rows: np.ndarray, values: torch.Tensor) -> None:
        import pyarrow as pa

        self.pa, self.path, self.values = pa, folder / "values.arrow", values
        self.rows = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(rows), [None, pa.py_buffer(rows.tobytes())])

    def write(self) -> None:
        pa = self.pa
        flat = pa.array(self.values.numpy().reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, self.values.shape[1])
        table = pa.table({"rows": self.rows, "v": column})
        with pa.OSFile(str(self.path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def open(self) -> None:
        self.table = self.pa.ipc.open_file(self.pa.memory_map(str(self.path))).read_all()

    def gather(self, places: np.ndarray) -> torch.Tensor:
        found = self.table.column("v").take(self.pa.array(places))
        return torch.from_numpy(
            found.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(places), -1)
        )


class ArrowAsArray(Arrow):
    """The same, read as one array."""

    name = "Arrow, as one array"

    def open(self) -> None:
        super().open()
        (chunk,) = self.table.column("v").chunks
        self.array = chunk.flatten().to_numpy(zero_copy_only=True).reshape(len(chunk), -1)

    def gather(self, places: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.take(self.array, places, axis=0))


def measure(kind: type, folder: Path, rows: np.ndarray, values: torch.Tensor, repeat: int) -> list[str]:
    one = kind(folder, rows, values)
    draws = np.random.default_rng(1)
    writing = timed(one.write, repeat)
    opening = timed(one.open, repeat)
    picks = [draws.integers(0, len(rows), GATHER) for _ in range(200)]
    for places in picks[:3]:
        assert torch.equal(one.gather(places), values[torch.from_numpy(places)])
    each = iter(picks * repeat)
    gathering = timed(lambda: one.gather(next(each)), 200 * repeat)
    every = np.arange(len(rows)).reshape(-1, GATHER)
    passing = timed(lambda: sum(len(one.gather(places)) for places in every), repeat)
    size = one.path.stat().st_size
    figures = [writing, opening, gathering * 1e6, size / 2**20 / passing]
    return [kind.name, *(f"{figure:.3f}" if figure < 10 else f"{figure:.0f}" for figure in figures)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2**18)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    values = torch.randn(args.rows, args.width, generator=torch.Generator().manual_seed(1))
    rows = np.sort(np.random.default_rng(2).integers(0, 2**63, (args.rows, 2), dtype=np.uint64), axis=0)
    size = values.numel() * 4 / 2**20
    print(f"{args.rows} rows of {args.width} float32 values, {size:.0f} MiB, medians of {args.repeat}, CPU time")
    print(f"{'':22}{'write s':>10}{'open s':>10}{'256 rows us':>13}{'in order MiB/s':>16}")
    for kind in (Ours, Arrow, ArrowAsArray):
        with tempfile.TemporaryDirectory() as folder:
            name, *told = measure(kind, Path(folder), rows, values, args.repeat)
        print(f"{name:22}" + "".join(f"{one:>{wide}}" for one, wide in zip(told, (10, 10, 13, 16), strict=True)))
    data = values.numpy().data.cast("B")
    print(f"sha256: {size / timed(lambda: hashlib.sha256(data), 3):.0f} MiB/s, within write and open of safetensors")


if __name__ == "__main__":
    main()
