"""A module is asked for the answers that the store lacks, and they are kept: as a mesh's agent would say them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError, line_of
from kdmesh.hosts.agent import Agent
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.placed import moves
from kdmesh.loops.samples import WHERE
from kdmesh.spec import TrainSpec
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.signals import write_signal

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.loops.producers import Producer
    from kdmesh.store import Entry


class Filler:
    """Forwards one module in eval mode, in groups of one fixed size, and keeps what it says."""

    def __init__(self, one: Producer, entry: Entry, forward_size: int) -> None:
        assert one.module is not None
        place = next((value.device for value in (*one.module.parameters(), *one.module.buffers())), "cpu")
        self._one, self._entry, self._size = one, entry, forward_size
        self._agent = Agent(one.name, LocalWeights(one.name, one.module, TrainSpec(device=str(place))), None, {})
        self._here = Fingerprint.here(self._agent.device)
        self._sound = False

    def __call__(self, x: Tensor, rows: Tensor, ids: Tensor) -> None:
        """Answer samples ``x [n, ...]``, found by ``rows [n, 16]``; ``ids [n]``: their numbers in the data.

        MeshError where the answers cannot be kept: their bits move with their company, or the store cannot be written.
        """
        if not self._sound:
            some = x[: self._size]
            if why := moves(lambda at: self._ask(some[at]), torch.arange(len(some)), lambda name, at: None):
                what = f"what {self._one.name} says cannot be kept: {why}"
                raise MeshError(what, where=WHERE, instead="another forward_size, or a module that answers alike")
            self._sound = True
        try:
            write_signal(self._entry, rows, self._ask(x)[""], None, self._here, ids=ids)
        except ValueError as why:
            raise MeshError(f"what {self._one.name} says cannot be kept: {why}", where=WHERE) from None
        if not bool(self._entry.find(rows, self._here).found.all()):
            raise MeshError("the answers could not be written", where=WHERE, file=str(self._entry.folder),
                            instead="a store with room that can be written")  # fmt: skip

    def _ask(self, x: Tensor) -> dict[str, Any]:
        try:
            return {"": self._agent.inference(x.to(self._agent.device), self._size)[0]}
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            kind = f"samples {str(x.dtype).removeprefix('torch.')} {list(x.shape[1:])}"
            what = f"{self._one.name} fails at {kind}: {type(error).__name__}: {error}{line_of(error)}"
            raise MeshError(what, where=WHERE, instead="a module that takes these, or sample=") from error
