"""Signals that a reader asks for: made in the step itself, of a source's logits and of what the reader says there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.offers import ObjectiveOffer, SignalOffer
    from kdmesh.spec import FlowSpec

NEED = "asked"
KNOWN = ("x", "module", "taps", "generator", NEED)
"""What a signal of samples may be given."""


def odd(kind: SignalOffer) -> list[str]:
    """What an offer of a signal that is asked for asks besides, and is not given: it is no part of a forward."""
    if NEED not in kind.needs:
        return []
    found = [need for need in kind.needs if need != NEED]
    found += [name for name in ("gradient", "both") if getattr(kind, name)]
    return found + ([] if kind.reads == "logits" else [f"layers (reads={kind.reads!r})"])


def settled(
    kind: SignalOffer | None, flow: FlowSpec, where: str, to_agent: bool, offer: ObjectiveOffer | None
) -> str | None:
    """A flow's refresh, `step` where its reader asks. MeshError where nobody asks in the step, or of other rows."""
    if kind is None or NEED not in kind.needs:
        return flow.refresh
    asks, instead = f"the signal {kind.name!r} is made of what its reader asks in each step", "signal: logits"
    if not to_agent or flow.as_ != "target":
        what = "a consensus asks nothing" if not to_agent else f"with `as: {flow.as_}` nobody asks"
        raise MeshError(f"{asks}, and {what}", where=f"{where}.signal", instead=f"a flow to an agent, or {instead}")
    for field, said in (("refresh", flow.refresh), ("stale", flow.stale)):
        if said not in (None, "step"):
            what = f"{asks}, and `{field}: {said}` reads answers that were given before"
            raise MeshError(what, where=f"{where}.{field}", instead=f"refresh: step, or {instead}")
    if not flow.detach:
        what = f"{asks}, and no gradient passes through it"
        raise MeshError(what, where=f"{where}.detach", instead=f"leave it out, or {instead}")
    if offer is not None and "spans" in offer.needs:
        what = f"{asks} about its own tokens, and {offer.name!r} compares those of others"
        raise MeshError(what, where=f"{where}.objective", instead="an objective that compares token by token (kl ...)")
    return "step"
