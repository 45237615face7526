"""Whether a plugin's code takes what it is called with: by the names of its parameters, before it is ever called."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torch import nn

from kdmesh.errors import MeshError
from kdmesh.graph.edges import LABELS
from kdmesh.offers import AGE, KNOWN, NOW

if TYPE_CHECKING:
    from collections.abc import Collection

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.offers import Offer
    from kdmesh.plugins import Registry

SWITCHES = {"labels": "needs_labels=True", "errors": "needs_errors=True", "column": "needs_column", "inputs": "inputs"}
"""What an offer of a rule says for facts that are not among its `needs`."""
SIGNALS = ("x", "module", "taps", "generator", "asked", "labels", "classes")


def refuse_parameters(
    registry: Registry,
    offer: Offer,
    method: str,
    call: Any,
    positional: int,
    given: Collection[str],
    where: str,
) -> None:
    """Raise MeshError where a call with so many positional arguments, and with keywords ``given``, cannot be made.

    ``method``: its name, for the message. Of code whose parameters are not known (some of C is) nothing is said, and
    what a decorator takes is taken as it is.
    """
    try:
        parameters = list(inspect.signature(call, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):
        return
    kinds = {one.kind for one in parameters}
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    by_name = [one for one in places[positional:] if one.kind is one.POSITIONAL_OR_KEYWORD]
    by_name += [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    known = {one.name for one in by_name}
    whose = f"the {method} of {registry.theirs(offer.kind, offer.name) or repr(offer.name)}"
    if len(places) < positional and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise MeshError(
            f"{whose} takes {len(places)} positional arguments, and is given {positional}",
            where=where,
            instead="the parameters that its base class has",
        )
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in given:
            if name not in known:
                why = ", which its offer needs" if name in getattr(offer, "needs", ()) or name in SWITCHES else ""
                instead = f"a parameter `{name}`" + (", or an offer that does not need it" if why else "")
                raise MeshError(f"{whose} takes no `{name}`{why}", where=where, instead=instead)
    for one in by_name:
        if one.default is one.empty and one.name not in given:
            what = f"{whose} asks for `{one.name}`, which it is not given"
            raise MeshError(what, where=where, instead=_declared(offer, one.name))


def _declared(offer: Offer, name: str) -> str:
    """How an offer asks for a fact of this name, where it can."""
    if offer.kind == "consensus" and name in SWITCHES:
        return f"{SWITCHES[name]} in its offer, or a default for it"
    needs: tuple[str, ...] = getattr(offer, "needs", ())
    if name in (SIGNALS if offer.kind == "signals" else KNOWN.get(offer.kind, {}).get("needs", ())):
        return f"needs={(*needs, name)!r} in its offer, or a default for it"
    return "a default for it" + (f"; its offer needs {', '.join(needs)}" if needs else "")


def of_objective(registry: Registry, offer: Offer, objective: Any, edge: Edge) -> None:
    """Raise MeshError where an objective's ``setup`` or ``forward`` does not take what a flow gives it."""
    needs = edge.needs
    facts = [name for name in needs if name != "tokens"]  # which `setup` alone is given
    if "spans" in needs:
        facts += ["source_spans", *(["source_labels"] if "labels" in needs else [])]
    refuse_parameters(
        registry, offer, "forward", objective.forward, 2, ("form", "weights", *facts), f"{edge.where}.objective"
    )
    whole = [name for name in needs if name in ("labels", "ids", "tokens")]  # of a stream that is not written
    whole += ["source_tokens"] if "tokens" in needs else []
    whole += ["labels"] if getattr(objective, "asks_labels", False) and not needs and edge.source == LABELS else []
    refuse_parameters(registry, offer, "setup", objective.setup, 2, whole, f"{edge.where}.objective")


def of_signal(registry: Registry, offer: Offer, make: Any, where: str) -> None:
    """Raise MeshError where what makes a signal does not take what its offer needs."""
    call = make.forward if isinstance(make, nn.Module) else make
    refuse_parameters(registry, offer, "call", call, 1, getattr(offer, "needs", ()), where)


def of_rule(registry: Registry, offer: Offer, node: ConsensusNode, rule: Any) -> None:
    """Raise MeshError where a rule's ``forward``, or ``weights`` where a space asks these, does not take its facts."""
    flags = {"labels": node.needs_labels, "errors": node.needs_errors, "column": node.column, "inputs": node.given}
    facts = [*node.needs, *(name for name, told in flags.items() if told)]
    if node.unaligned:  # rows of no samples: only the time is told, and who is away
        facts = [name for name in (AGE, *NOW) if name in node.needs]
    where = f"consensus.{node.name}.rule"
    if node.space in ("loss", "gradient"):
        more = ["gradients"] if node.space == "gradient" else []
        refuse_parameters(registry, offer, "weights", rule.weights, 1, ("present", *facts, *more), where)
    if node.space != "gradient":
        facts += ["target"] if node.per_target else []
        refuse_parameters(registry, offer, "forward", rule.forward, 1, ("logits", "present", *facts), where)
