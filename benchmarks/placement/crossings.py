"""Bytes that cross between hosts, counted where a run passes a result from one host to another."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.placement import meshes as flow
from kdmesh.backends.inline import Done, InlineBackend
from kdmesh.spec import MeshSpec
from kdmesh.streams.table import Table

SAMPLES, BATCH, EPOCHS, STEPS = 512, 32, 4, 4
REFRESH = ("step", f"{STEPS} steps", "epoch", "once")
SIGNALS: dict[str, dict[str, Any]] = {
    "logits": {"objective": "kl"},
    "votes": {"objective": "ce", "signal": "votes"},
    "hidden": {"objective": "hint", "tap": "layers.0"},
}
UNREAD = ("evaluate_consensus", "save")  # for measuring and for checkpoints


class Made(Done):
    """A result that knows the host it was made on."""

    __slots__ = ("host",)

    def __init__(self, value: Any, host: str) -> None:
        super().__init__(value)
        self.host = host


class Counting(InlineBackend):
    """The inline backend, its hosts apart; counts what a host is given of another host's results, once per host."""

    def __init__(self) -> None:
        super().__init__()
        self.arrays = self.pickled = 0

    def call(self, host: str, method: str, *args: Any, results: int = 1) -> Any:
        """Run the call; what it reads of other hosts has crossed."""
        for arg in args:
            if isinstance(arg, Made) and arg.host != host and method not in UNREAD:
                self.arrays += held(arg.value)
                self.pickled += len(pickle.dumps(arg.value, protocol=5)) if held(arg.value) else 0
        made = super().call(host, method, *args, results=results)
        return Made(made.value, host) if results == 1 else [Made(part.value, host) for part in made]


def held(value: Any) -> int:
    """Bytes of the arrays in a result."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(held, value.values()))
    return sum(map(held, value)) if isinstance(value, list | tuple) else 0


def rows(run: Callable[[MeshSpec, Table], Counting]) -> Iterator[str]:
    """A line per refresh period: bytes for each sample that the student trains on, by signal."""
    data = flow.table("mlp", SAMPLES)
    yield f"  {'refresh':12}" + "".join(f"{name:>22}" for name in SIGNALS)
    for refresh in REFRESH:
        cells = []
        for settings in SIGNALS.values():
            mesh = flow.pair(BATCH, flow.MLP, refresh=refresh, **settings)
            found = run(flow.placed(mesh, "spread", epochs=EPOCHS), data)
            each = [size / (SAMPLES * EPOCHS) for size in (found.arrays, found.pickled)]
            cells.append(f"{each[0]:.1f} ({each[1]:.1f})")
        yield f"  {refresh:12}" + "".join(f"{cell:>22}" for cell in cells)
    yield f"  ({CONTEXT})"


CONTEXT = f"{EPOCHS} epochs of {SAMPLES // BATCH} steps of {BATCH}; 10 classes, float32; the hidden layer has 160 units"
