"""Speed of data that are not in memory, beside the same data in memory, and beside torch's DataLoader.

Where nothing is decoded (arrays, IDX, a table's numbers, the tokens of texts) two hosts train the same model on the
same batches, one on data in memory, one on data that are mapped. They take turns in one process, in blocks of a few
steps, changing who is first. Milliseconds are CPU time of one thread for a step, the system's share included, medians
over blocks; the ratio is the median of the paired ratios of memory to file, at least 0.95. Losses of both are equal in
every bit. Files have been read once before, as `check` does, and are in the system's cache.

Images are decoded: by kdmesh with so many processes, and by a DataLoader with as many, which decodes, stacks and scales
as one would write it. Both give their batches to one loop, which adds up their values (*read*) or trains on them
(*train*). They take turns by epochs, processes stay, and what kdmesh reads ahead for its next turn counts in this one;
where there are no processes, by batches. Milliseconds are of the clock for a batch, medians; the ratio is the median of
the paired ratios of DataLoader to kdmesh, at least 1.
Run: ``python benchmarks/lazily.py [--quick] [--only CASES]``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KDMESH_STORE", "off")

import statistics
import struct
import sys
import tempfile
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from driven import Driven
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.hosts.loader import ShardView
from kdmesh.hosts.memory import keep_memory
from kdmesh.streams.stream import Stream

FLOOR, BATCH = 0.95, 64
OFFERS = {offer.name: offer for offer in DATASETS}
SIDE, DIFFERENT = 256, 64  # of JPEGs
MLP = {"mlp": {"hidden": [64]}}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
BERT = {"hf": {"config": {"model_type": "bert", **TINY}, "tokenizer": {"characters": {}}}}
LLAMA = {"model_type": "llama", "num_key_value_heads": 2, "max_position_embeddings": 64, **TINY}
MODELS = {"texts, classes": BERT, "texts, language": {"hf": {"config": LLAMA, "tokenizer": {"characters": {}}}}}


def arrays(root: Path, values: np.ndarray) -> dict[str, Any]:
    """A folder of .npy files."""
    np.save(root / "x.npy", values)
    np.save(root / "y.npy", np.arange(len(values)) % 10)
    return {"arrays": {"path": str(root)}}


def idx(root: Path, pixels: np.ndarray) -> dict[str, Any]:
    """A folder as of MNIST."""
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", *pixels.shape)
    (root / "train-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
    labels = bytes(number % 10 for number in range(len(pixels)))
    head = bytes([0, 0, 8, 1]) + struct.pack(">I", len(pixels))
    (root / "train-labels-idx1-ubyte").write_bytes(head + labels)
    return {"idx": {"folder": str(root)}}


def table(root: Path, values: np.ndarray) -> dict[str, Any]:
    """A CSV file."""
    names = [*(f"f{number}" for number in range(values.shape[1])), "label"]
    lines = [",".join(f"{one:.4f}" for one in row) + f",{number % 10}" for number, row in enumerate(values)]
    (root / "rows.csv").write_text("\n".join([",".join(names), *lines]))
    return {"csv": {"path": str(root / "rows.csv")}}


def texts(root: Path, drawn: np.random.Generator, **more: str) -> dict[str, Any]:
    """JSON lines of letters."""
    letters = drawn.integers(97, 123, (4096, 60), dtype=np.uint8)
    rows = [{"text": row.tobytes().decode(), "label": "ab"[number % 2]} for number, row in enumerate(letters)]
    (root / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"text": {"path": str(root / "texts.jsonl"), **more}}


def data(case: str, root: Path) -> dict[str, Any]:
    """The data set of a case, written to a folder."""
    drawn = np.random.default_rng(0)
    match case:
        case "arrays, float32":
            return arrays(root, drawn.normal(size=(16384, 3072)).astype("f4"))
        case "arrays, uint8":
            return arrays(root, drawn.integers(0, 2, (16384, 3, 32, 32), dtype=np.uint8))
        case "idx":
            return idx(root, drawn.integers(0, 256, (16384, 28, 28), dtype=np.uint8))
        case "csv, 32 columns":
            return table(root, drawn.normal(size=(8192, 32)))
        case "texts, classes":
            return texts(root, drawn, label="label")
        case "texts, language":
            return texts(root, drawn, text="text")
    raise ValueError(case)


MAPPED = ("arrays, float32", "arrays, uint8", "idx", "csv, 32 columns", "texts, classes", "texts, language")


def trained(case: str, dataset: dict[str, Any], steps: int) -> Driven:
    """A student of labels on a data set."""
    mesh = {
        "task": "language_modelling" if case == "texts, language" else "classification",
        "data": {"dataset": dataset, "validation": 0, "test": 0},
        "agents": {"s": {"model": MODELS.get(case, MLP)}},
        "train": {"steps": steps, "batch_size": BATCH, "optimizer": {"adamw": {"lr": 1e-3}}, "threads": 1},
        **({"text": {"max_length": 64}} if case.startswith("texts") else {}),
    }
    return Driven(mesh, ["s"], steps)


def mapped(case: str, blocks: int, steps: int) -> tuple[str, bool]:
    """Measure a case of data that are mapped; returns its line, and whether it keeps the bound."""
    with tempfile.TemporaryDirectory() as folder:
        given = data(case, Path(folder))
        ways = {}
        for name, lazy in (("memory", False), ("later", True)):
            own = {kind: {**settings, "lazy": lazy} for kind, settings in given.items()}
            ways[name] = trained(case, own, (blocks + 1) * steps)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        losses: dict[str, dict[str, float]] = {}
        for block in range(blocks + 1):  # the first is not counted
            for name in list(ways)[:: 1 if block % 2 else -1]:
                started = time.process_time()
                losses[name] = ways[name](block * steps, (block + 1) * steps)
                taken[name].append((time.process_time() - started) / steps)
            assert losses["memory"] == losses["later"], losses
    ratio = statistics.median(m / f for m, f in list(zip(*taken.values(), strict=True))[1:])
    times = "".join(f"{1000 * statistics.median(values[1:]):12.3f}" for values in taken.values())
    return f"{case:28}{times}{ratio:10.3f}{FLOOR:8.2f}" + ("" if ratio >= FLOOR else "  MISS"), ratio >= FLOOR


class Plain(Dataset):
    """What one would write."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[at]) as image:
            pixels = np.array(image.convert("RGB")).transpose(2, 0, 1)
        return torch.from_numpy(pixels.copy()), at % 2


class Reading:
    """What a shard view asks of its host."""

    texts = False

    def __init__(self, table: Any) -> None:
        self.table = table

    def numbers(self, agent: str) -> Any:
        """All samples, as they are."""
        return self.table.numbers


def jpegs(root: Path, rows: int) -> Path:
    """A table of so many rows, each the path of one of a few images."""
    drawn = np.random.default_rng(0)
    for number in range(DIFFERENT):
        small = drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(root / f"{number}.jpg", quality=90)
    lines = [f"{number % DIFFERENT}.jpg,{number % 2}" for number in range(rows)]
    (table := root / "table.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    return table


def decoded(workers: int, trains: bool, turns: int, rows: int) -> tuple[str, bool]:
    """Measure images that are decoded; returns the line, and whether it keeps the bound."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 7, 4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(),
        torch.nn.Linear(128, 2),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)

    def use(x: torch.Tensor, y: torch.Tensor) -> None:
        if not trains:
            assert x.sum() > 0
            return
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    with tempfile.TemporaryDirectory() as folder:
        path = jpegs(Path(folder), rows)
        own = OFFERS["images"].make({"path": str(path), "lazy": True, "workers": workers})
        view = ShardView(Reading(own), Stream("train", torch.arange(rows), True), "s", "", 0, torch.device("cpu"))
        plain = Plain([f"{folder}/{number % DIFFERENT}.jpg" for number in range(rows)])
        loader = DataLoader(plain, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        per, taken = -(-rows // BATCH), {"DataLoader": list[float](), "kdmesh": list[float]()}
        once = per if workers else 1  # batches of a turn: processes read ahead, to the end of an epoch
        turns *= per // once
        theirs = (batch for _ in itertools.count() for batch in loader)
        for turn in range(turns + 1):  # the first is not counted
            for name in list(taken)[:: 1 if turn % 2 else -1]:
                started = time.perf_counter()
                for step in range(turn * once, (turn + 1) * once):
                    if name == "kdmesh":
                        batch = view.batch(step, BATCH, False)
                        assert batch is not None and batch.y is not None
                        use(batch.x, batch.y)
                    else:
                        x, y = next(theirs)
                        use(x.float().div_(255), y)
                if name == "kdmesh":  # which asks for what the next turn begins with
                    wait([one for asked in view.x._asked.values() for one in asked])
                taken[name].append((time.perf_counter() - started) / once)
    ratio = statistics.median(t / k for t, k in list(zip(*taken.values(), strict=True))[1:])
    times = "".join(f"{1000 * statistics.median(values[1:]):12.3f}" for values in taken.values())
    case = f"images, {workers} processes, {'train' if trains else 'read'}"
    return f"{case:28}{times}{ratio:10.3f}{1:8.2f}" + ("" if ratio >= 1 else "  MISS"), ratio >= 1


def main() -> None:
    """Measure every case and print the tables."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="a third of the turns")
    options.add_argument("--only", default="", help="cases with this in their name")
    given = options.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    kept, many = True, 1 if given.quick else 3
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"torch {torch.__version__}, one thread, {os.cpu_count()} cores, {load}, interleaved, medians\n")
    print(f"{'case':28}{'memory ms':>12}{'file ms':>12}{'ratio':>10}{'floor':>8}")
    for case in MAPPED:
        if given.only in case:
            line, fine = mapped(case, 11 * many, 16 if case.startswith("texts") else 48)
            print(line, flush=True)
            kept = kept and fine
    print(f"\n{'case':26}{'DataLoader ms':>14}{'kdmesh ms':>12}{'ratio':>10}{'floor':>8}")
    for workers in (0, 1, 2):
        for trains in (False, True):
            if given.only in f"images, {workers} processes":
                line, fine = decoded(workers, trains, (15 if workers else 12) * many, 640)
                print(line, flush=True)
                kept = kept and fine
    sys.exit(not kept)


if __name__ == "__main__":
    main()
