"""Train a student of stored answers, 32 KiB a sample, and print how much own memory (RssAnon) that took at most.

``python resident_run.py STORE SAMPLES [REFRESH]``: once to fill the store, and again to read it.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import torch

import kdmesh

WIDE = 8192


def resident() -> int:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main(store: str, count: int, refresh: str = "once") -> int:
    """The most that a run took beside what there was before."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(n, 8, generator=generator) for n in (count, 32, 32)]
    data = kdmesh.data(*((x, (x[:, 0] > 0).long()) for x in parts), classes=2)
    made = kdmesh.Mesh(data=data, train={"epochs": 1, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.01}}})
    made.agent("t", {"mlp": {"hidden": [WIDE]}}, update="frozen", seed=1)
    made.agent("s", {"mlp": {"hidden": [4]}})
    made.flow("labels", "s", objective="ce")
    made.flow("t", "s", objective="hint", tap={"of": "layers.0", "to": "layers.0"}, refresh=refresh)
    before, most, over = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.02):
            most = max(most, resident())

    watching = threading.Thread(target=watch)
    watching.start()
    made.run(backend="inline", store=store)
    over.set()
    watching.join()
    return most - before


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
