"""One event file of scalars, by TensorBoard's own writer. It imports tensorboard and numpy, and no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from time import monotonic
from typing import Any

from kdmesh.errors import MeshError
from kdmesh.trackers import Tracker

try:
    from tensorboard.summary import Writer
except ImportError as error:
    raise MeshError(
        f"there is no TensorBoard to write with ({error})",
        where="kdmesh-tensorboard",
        instead="pip install tensorboard, or set KDMESH_DISABLE_PLUGINS=kdmesh-tensorboard",
    ) from None


class Log(Tracker):
    """The scalars of one run. What was written is in the file when a method returns: a killed run keeps it.

    Tags are the names of :class:`kdmesh.trackers.Tracker`; of an evaluation, also of a consensus at the end, the step
    counts evaluations from 1. ``stages/<stage>`` has the seconds until it began, by the number of the stage.
    """

    def __init__(self, run: Any) -> None:
        super().__init__(run)
        self._writer = Writer(str(run.folder / "tensorboard"))
        self._evaluations: Counter[tuple[str, str]] = Counter()
        self._stages = 0
        self._start = monotonic()

    def began(self, stage: str) -> None:
        """Write the seconds since the start; the step is the number of the stage, in the order in which they began."""
        self._stages += 1
        self.write({f"stages/{stage}": monotonic() - self._start}, self._stages)

    def evaluated(self, agent: str, stream: str, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write one evaluation of an agent or a consensus."""
        self._evaluations[agent, stream] += 1
        super().evaluated(agent, stream, metrics, self._evaluations[agent, stream])

    def log(self, numbers: dict[str, float], at: int, axis: str) -> None:
        """Write numbers by name."""
        for tag, value in numbers.items():
            self._writer.add_scalar(tag, value, at)
        self._writer.flush()

    def summarise(self, numbers: dict[str, float], summary: Mapping[str, Any]) -> None:
        """Write how good each consensus was; agents' figures are there."""
        for name, about in summary["consensus"].items():
            for stream, metrics in about["metrics"].items():
                self.evaluated(name, stream, metrics)

    def close(self, end: str, error: str) -> None:
        """Close the file."""
        self._writer.close()
