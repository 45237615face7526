"""How large a mesh may be: what is larger would keep the planner busy for minutes, and no machine would train it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.spec import FlowSpec

NODES = 4_000  # agents, or consensus nodes; docs/scaling.md simulates 1,024 hosts
EDGES = 150_000  # all pairs of 387 peers


def nodes(count: int, where: str, kind: str = "agents") -> None:
    """Refuse more agents or consensus nodes than a mesh may have."""
    if count > NODES:
        raise MeshError(f"{count:,} {kind}, and a mesh has at most {NODES:,}", where=where, instead=f"fewer {kind}")


def edges(count: int, where: str) -> None:
    """Refuse more edges than a mesh may have."""
    if count > EDGES:
        raise MeshError(
            f"{count:,} edges or more, and a mesh has at most {EDGES:,}",
            where=where,
            instead="a consensus that all send to and learn from, or each with a few of the others",
        )


def drawn(flow: FlowSpec) -> int:
    """How many edges a flow is, or a few more: one for each pair of its ends and each tap."""
    return len(flow.from_) * len(flow.to) * len(flow.taps)
