"""Images that are read when a batch asks for them: memory of a set of many GB, and speed beside others.

`python benchmarks/larger_than_memory.py [--gb 20]` first prints the seconds of an epoch of images in memory, read
lazily and with processes, and of torch's DataLoader with as many. Then it makes a table that lists a few JPEGs again
and again, trains on it, and prints the most anonymous memory (RssAnon) that the process had, the interpreter and torch
included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, DIFFERENT, WORKERS = 256, 64, 2
BYTES = 3 * SIDE * SIDE * 4  # of an image in memory


def write(root: Path, rows: int) -> Path:
    """A table of so many rows, each the path of one of a few images."""
    drawn = np.random.default_rng(0)
    for number in range(DIFFERENT):
        small = drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(root / f"{number}.jpg", quality=90)
    lines = [f"{number % DIFFERENT}.jpg,{number % 2}" for number in range(rows)]
    (table := root / "table.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    return table


def resident(gb: float) -> None:
    """Train one epoch on a set of so many GB; print what memory it took."""
    rows = int(gb * 1e9 / BYTES)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        mesh = {
            "name": "large",
            "data": {
                "dataset": {"images": {"path": str(write(root, rows)), "lazy": True}},
                "test": 64,
                "validation": 64,
            },
            "agents": {"s": {"model": {"mlp": {"hidden": [2]}}}},
            "train": {"epochs": 1, "batch_size": 64},
        }
        (root / "mesh.yaml").write_text(json.dumps(mesh))
        command = [sys.executable, "-m", "kdmesh", "run", "mesh.yaml", "--backend", "inline", "--store", "off"]
        started, most = time.perf_counter(), 0
        with (root / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
            while process.poll() is None:
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    most = max(
                        most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0
                    )
                except (OSError, TypeError):
                    pass
                time.sleep(0.2)
        seconds = time.perf_counter() - started
        if process.returncode:
            sys.exit((root / "log").read_text())
    print(
        f"{rows:,} images, {rows * BYTES / 1e9:.1f} GB in memory: RssAnon {most / 1e6:.2f} GB, {seconds:.0f} s",
        flush=True,
    )


def speeds(rows: int) -> None:
    """Seconds in which all samples of an epoch are there, by how they are read."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from kdmesh.builtin.datasets.images import images
    from kdmesh.hosts.loader import ShardView
    from kdmesh.streams.stream import Stream

    class Plain(Dataset):
        """What one would write."""

        def __init__(self, paths: list[str]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, at: int) -> torch.Tensor:
            with Image.open(self.paths[at]) as image:
                return torch.from_numpy(np.array(image.convert("RGB")).transpose(2, 0, 1).copy())

    class Reading:
        """What a shard view asks of its host."""

        texts = False

        def __init__(self, table: object) -> None:
            self.table = table

    def epoch(view: ShardView, number: int) -> float:
        started, per = time.perf_counter(), -(-rows // 64)
        for step in range(number * per, (number + 1) * per):
            batch = view.batch(step, 64, False)
            assert batch is not None and batch.x.sum() > 0
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder:
        path = str(write(Path(folder), rows))
        stream = Stream("train", torch.arange(rows), True)
        views = {}
        for name, more in {"memory": {"lazy": False}, "lazily": {"lazy": True},
                           f"lazily, {WORKERS} processes": {"lazy": True, "workers": WORKERS}}.items():  # fmt: skip
            views[name] = ShardView(Reading(images(path, **more)), stream, "s", "", 0, torch.device("cpu"))
        plain = Plain([f"{folder}/{number % DIFFERENT}.jpg" for number in range(rows)])
        loader = DataLoader(plain, 64, shuffle=True, num_workers=WORKERS, persistent_workers=True)
        found: dict[str, list[float]] = {}
        for number in range(4):  # the first is not counted
            for name, view in views.items():
                found.setdefault(name, []).append(epoch(view, number))
            started = time.perf_counter()
            for x in loader:
                assert (x.float() / 255).sum() > 0
            found.setdefault(f"DataLoader, {WORKERS} processes", []).append(time.perf_counter() - started)
    print(
        f"an epoch of {rows} images, seconds, least of 3: "
        + "; ".join(f"{n} {min(s[1:]):.2f}" for n, s in found.items())
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=20)
    parser.add_argument("--images", type=int, default=640)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    speeds(asked.images)
    resident(asked.gb)
