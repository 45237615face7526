"""One time at which weights flow: what leaves then, through which consensus nodes, and whom it reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.graph.merging import Merging, WeightFlow


class Moment:
    """What some flows bring. ``leaving``: those of agents that carry weights now, by their ids."""

    def __init__(self, merging: Merging, owner: Mapping[str, str], leaving: set[int]) -> None:
        self.merging, self.owner, self.leaving = merging, owner, leaving

    def brings(self, flow: WeightFlow, reader: str) -> bool:
        """Whether a flow brings anything to a reader now."""
        if flow.weight == 0:
            return False
        if flow.source not in self.merging.pools:
            return flow.id in self.leaving
        return any(self.combined(flow.source, reader))

    def combined(self, pool: str, reader: str) -> list[bool]:
        """Which inputs of a consensus bring anything to a reader."""
        node, own = self.merging.pools[pool], self.owner[reader]
        return [
            (node.include_self or self.owner.get(inner.source) != own) and self.brings(inner, reader)
            for inner in node.inputs
        ]

    def variant(self, node: str, reader: str) -> str | None:
        """The reader, where a consensus has a version of its own for it; else None."""
        pool = self.merging.pools.get(node)
        if pool is None:
            return None
        own = self.owner[reader]
        apart = not pool.include_self and any(self.owner.get(inner.source) == own for inner in pool.inputs)
        return reader if apart or any(self.variant(inner.source, reader) for inner in pool.inputs) else None
