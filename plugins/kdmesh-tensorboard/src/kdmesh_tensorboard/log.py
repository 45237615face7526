"""One event file of scalars, by TensorBoard's own writer. It imports tensorboard and numpy, and no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from kdmesh.errors import MeshError

try:
    from tensorboard.summary import Writer
except ImportError as error:
    raise MeshError(
        f"there is no TensorBoard to write with ({error})",
        where="kdmesh-tensorboard",
        instead="pip install tensorboard, or set KDMESH_DISABLE_PLUGINS=kdmesh-tensorboard",
    ) from None


class Log:
    """The scalars of one run. What was written is in the file when a method returns: a killed run keeps it.

    Tags are ``accuracy/validation/student`` (metric, stream, agent or consensus; the step counts evaluations from 1),
    ``rounds/<stage>/...`` (the step is the round), and ``stages/<stage>``, the seconds until it began.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = Writer(str(folder))
        self._evaluations: Counter[tuple[str, str]] = Counter()
        self._stages = 0
        self._start = monotonic()

    def began(self, stage: str) -> None:
        """Write the seconds since the start; the step is the number of the stage, in the order in which they began."""
        self._stages += 1
        self.write({f"stages/{stage}": monotonic() - self._start}, self._stages)

    def measured(self, name: str, stream: str, metrics: Mapping[str, Any]) -> None:
        """Write one evaluation of an agent or a consensus."""
        self._evaluations[name, stream] += 1
        self.write(
            {f"{metric}/{stream}/{name}": value for metric, value in metrics.items()}, self._evaluations[name, stream]
        )

    def write(self, values: Mapping[str, Any], step: int) -> None:
        """Write every number of a nested mapping under its path; what is not a number is left out."""
        for tag, value in _numbers(values):
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def _numbers(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a nested mapping, with its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{path}{name}/")
        elif isinstance(value, int | float):
            yield f"{path}{name}", value
