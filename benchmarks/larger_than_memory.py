"""Memory of a run on a set of many GB that is read when a batch asks for it.

`python benchmarks/larger_than_memory.py [--form images | arrays | texts] [--gb 20]` makes such a set and trains on it:
a table that lists a few JPEGs again and again; a .npy file that is mostly holes; a folder of `datasets` with a few
texts again and again. It prints the most anonymous memory (RssAnon) that the process had, the interpreter and torch
included. GB are of float32 for images and arrays, of the Arrow file for texts. How fast such data are read:
`benchmarks/lazily.py`.
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
from typing import Any

import numpy as np

SIDE, DIFFERENT = 256, 64  # of images
PIXELS = 3 * 64 * 64  # of a row of arrays
WORDS = 4000  # of a text, of six letters on average
SPARSE = 100  # rows of arrays of which one holds anything but zeros


def images(root: Path, gb: float) -> tuple[dict[str, Any], str]:
    """A table of paths."""
    from PIL import Image

    rows, drawn = int(gb * 1e9 / (3 * SIDE * SIDE * 4)), np.random.default_rng(0)
    for number in range(DIFFERENT):
        small = drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(root / f"{number}.jpg", quality=90)
    lines = [f"{number % DIFFERENT}.jpg,{number % 2}" for number in range(rows)]
    (root / "table.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    return {"images": {"path": str(root / "table.csv"), "lazy": True}}, f"{rows:,} images, {gb:.1f} GB in memory"


def arrays(root: Path, gb: float) -> tuple[dict[str, Any], str]:
    """A folder of .npy files."""
    rows, drawn = int(gb * 1e9 / (4 * PIXELS)), np.random.default_rng(0)
    x = np.lib.format.open_memmap(root / "x.npy", "w+", "f4", (rows, 3, 64, 64))
    for row in range(0, rows, SPARSE):
        x[row] = drawn.random((3, 64, 64), dtype=np.float32)
    x.flush()
    del x
    np.save(root / "y.npy", np.arange(rows) // SPARSE % 2)
    taken = 512 * (root / "x.npy").stat().st_blocks
    what = f"{rows:,} rows of a .npy file of {gb:.1f} GB, of which {taken / 1e9:.1f} on the disk"
    return {"arrays": {"path": str(root), "lazy": True}}, what


def texts(root: Path, gb: float) -> tuple[dict[str, Any], str]:
    """A folder that `save_to_disk` made."""
    import datasets

    drawn = np.random.default_rng(0)
    words = np.array(["".join(chr(97 + one) for one in drawn.integers(0, 26, 5)) for _ in range(5000)])
    few = tuple(" ".join(drawn.choice(words, WORDS)) for _ in range(DIFFERENT))  # the library divides lists
    rows = int(gb * 1e9 / len(few[0]))
    given = {"few": few, "rows": rows}
    made = datasets.Dataset.from_generator(_texts, gen_kwargs=given, cache_dir=str(root / "cache"))
    made.save_to_disk(str(root / "texts"), max_shard_size="2GB")
    size = sum(file.stat().st_size for file in (root / "texts").glob("*.arrow"))
    text = {"path": str(root / "texts"), "label": "label", "lazy": True}
    return {"text": text}, f"{rows:,} texts, {size / 1e9:.1f} GB of Arrow"


def _texts(few: tuple[str, ...], rows: int) -> Any:
    for number in range(rows):
        yield {"text": f"{number} {few[number % DIFFERENT]}", "label": "ab"[number % 2]}


TINY = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16}  # fmt: skip
FORMS = {
    "images": (images, {"mlp": {"hidden": [2]}}, 20.0),
    "arrays": (arrays, {"mlp": {"hidden": [2]}}, 20.0),
    "texts": (texts, {"hf": {"config": TINY, "tokenizer": {"bpe": {"vocabulary": 300}}}}, 2.0),
}


def resident(form: str, gb: float | None) -> None:
    """Train one epoch on a set of so many GB; print what memory it took."""
    make, model, usual = FORMS[form]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset, what = make(root, gb or usual)
        mesh = {
            "name": "large",
            "data": {"dataset": dataset, "test": 64, "validation": 64},
            "agents": {"s": {"model": model}},
            "train": {"epochs": 1, "batch_size": 64},
        }
        (root / "mesh.yaml").write_text(json.dumps(mesh))
        command = [sys.executable, "-m", "kdmesh", "run", "mesh.yaml", "--backend", "inline", "--store", "off"]
        started, most, whole = time.perf_counter(), 0, 0
        with (root / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
            while process.poll() is None:
                anonymous, mapped = status(process.pid)
                most, whole = max(most, anonymous), max(whole, mapped)
                time.sleep(0.2)
        seconds = time.perf_counter() - started
        if process.returncode:
            sys.exit((root / "log").read_text())
    print(f"{what}: RssAnon {most / 1e6:.2f} GB, RssFile {whole / 1e6:.2f} GB, {seconds:.0f} s", flush=True)


def status(pid: int) -> tuple[int, int]:
    """KB of a process's anonymous memory, and of the parts of files that it has mapped; 0 of one that has ended."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(lines["RssAnon"].split()[0]), int(lines["RssFile"].split()[0])
    except (OSError, KeyError):
        return 0, 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--form", choices=FORMS, default="images")
    parser.add_argument("--gb", type=float, help="by default 20, of texts 2")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    resident(asked.form, asked.gb)
