"""Refuse signals that draw, where their source answers in eval mode: its answers belong to samples, not to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.steps import Op

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.offers import SignalOffer


def still(plan: Plan, edge: Edge) -> str:
    """Why the source of a derived signal answers in eval mode at some time; "" where it never does."""
    if edge.target in plan.consensus:
        return f"{edge.target} is measured of answers in eval mode"
    if not edge.live:
        return "" if edge.stale == "recorded" else f"what {edge.source} publishes it answers in eval mode"
    if edge.mode != "auto":
        return "" if edge.mode == "train" else "the flow says `mode: eval`"
    owner = plan.owner[edge.source]
    if (ema := plan.spec.agents[owner].ema) is not None:
        return "" if ema.mode == "train" else f"{edge.source} follows another in eval mode"
    phases = [phase for stage in plan.stages for phase in stage.phases.values() if edge in phase.edges]
    if all(Op("u", owner) in phase.ops for phase in phases):
        return ""
    return f"{edge.source} answers in eval mode where it does not train"


def refuse(plan: Plan, edge: Edge, offer: SignalOffer) -> None:
    """Raise MeshError for a signal that asks for a generator where its source answers in eval mode."""
    if "generator" in offer.needs and (why := still(plan, edge)):
        raise MeshError(
            f"the signal {offer.name!r} draws for each batch, and {why}: there a row depends on its sample alone",
            where=f"{edge.where}.signal",
            instead="`refresh: step` and `mode: train` on a flow to an agent, or a view that draws by sample id",
        )
