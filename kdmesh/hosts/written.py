"""Written streams: what an agent's host produces for a step, where a batch is not derived from the step's number.

A writer is a Python object: ``write(step, agent)`` gives ``x [B, ...]``, ``y [B, ...]`` or None where the stream hides
its labels, and ``ids [B]`` (int64), for a batch of the phase's size. It is called on the agent's host where a period
of the stream begins, before that step's forwards, without gradient, with the agent in eval mode and with the default
generators seeded by mesh, stream and step. What it gives stands among the publications of every host that reads the
stream until the next; checkpoints hold it, and the writer's own state where it has ``state_dict`` and
``load_state_dict`` (tensors by name).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.hosts.loader import Batch
from kdmesh.hosts.publications import Key
from kdmesh.streams.order import steps_per_epoch

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.publications import Publications
    from kdmesh.spec import TrainSpec
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

KIND = "written"
X, Y, IDS, STEP = "", "y", "ids", "step"
PARTS = {X, Y, IDS}
"""What a written value is made of; with the step that it was written for it stands among publications."""


class Writer(Protocol):
    """What writes a stream."""

    def write(self, step: int, agent: Agent) -> tuple[Tensor, Tensor | None, Tensor]:
        """The samples of a batch, their labels, and their ids."""


def period(plan: Plan, stream: str, first: Stream, settings: TrainSpec) -> int:
    """Steps after which a stream is written anew: a number of updates of its agent's weights, or a phase's epoch.

    ``first``: the phase's first stream, which defines its epoch.
    """
    spec = plan.spec.streams[stream]
    assert spec.generated_by is not None
    refresh = spec.refresh or "step"
    if refresh == "step":
        return 1
    if refresh != "epoch":
        return int(refresh.split()[0]) * plan.train(spec.generated_by).accumulate
    sizes = [len(rows) for rows in (first.shards or {"": first.rows}).values()]
    return max(steps_per_epoch(size, settings.batch_size, settings.drop_last) for size in sizes)


class Written:
    """A written stream as the agents on one device read it: the batch of a step is the last that was written."""

    owner = ""  # it is not divided

    def __init__(self, publications: Publications, stream: Stream, agent: str, device: torch.device) -> None:
        """``agent``: at whose host it is written."""
        self.stream, self.device, self.units = stream, device, False
        self._publications = publications
        self._x, self._y, self._ids, self._step = (Key(agent, stream.name, part, KIND) for part in (X, Y, IDS, STEP))

    def count(self, step: int, size: int, drop_last: bool) -> int:
        """As many as a full batch has: see :func:`guard.refuse_written`."""
        return size

    def sizes(self, step: int, size: int, drop_last: bool) -> int:
        """The same: a sample has one answer."""
        return size

    def batch(self, step: int, size: int, drop_last: bool) -> Batch | None:
        """What was written for this step or the last before it; None where nothing was, as of a dropped agent."""
        found = self._publications.get(self._x)
        if found is None:
            return None
        x, y = found.values, self._publications.get(self._y)
        assert isinstance(x, Tensor)
        known = None if y is None or not self.stream.labelled else y.values.to(self.device)
        assert known is None or isinstance(known, Tensor)
        return Batch(x.to(self.device), known, torch.arange(len(x), device=self.device), step)

    def rows(self, at: Tensor) -> Tensor:
        """A sample has one answer."""
        return at

    def samples(self, at: Tensor) -> Tensor:
        """The ids of what stands at positions ``at`` of the last batch."""
        found = self._publications.get(self._ids)
        assert found is not None and isinstance(found.values, Tensor)
        return found.values.cpu()[at.cpu()]


def state(stream: str, writer: Any) -> dict[str, Tensor]:
    """A writer's own state, for a checkpoint: nothing where it has none."""
    found = writer.state_dict() if hasattr(writer, "state_dict") else {}
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise MeshError(
            f"the state_dict of its writer, a {type(writer).__name__}, is not tensors by name",
            where=f"streams.{stream}",
            instead='{"count": torch.tensor(3)}',
        )
    return found


class Rows:
    """In place of a writer, in the trial: the first samples that a stream names, again and again."""

    def __init__(self, table: Table, stream: Stream, size: int) -> None:
        ids = stream.rows[torch.arange(size) % len(stream.rows)]
        self._given = table.numbers[ids], table.y[ids] if stream.labelled and table.y is not None else None, ids

    def write(self, step: int, agent: Agent) -> tuple[Tensor, Tensor | None, Tensor]:
        """The same for every step."""
        return self._given
