"""What is pruned: said with sizes before and after, and refused of weights that nobody trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.heard import origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.compression.pruning import Pruned


def told(pruned: Pruned | None) -> str:
    """What is said behind an agent's number of parameters."""
    if pruned is None:
        return ""
    zeros = f", of which {pruned.zeros:,} stay 0" if pruned.zeros else ""
    return f" of {pruned.before:,}{zeros}: pruned" if pruned.before != pruned.after else f"{zeros}: pruned"


def counts(pruned: Pruned | None) -> dict[str, dict[str, int]]:
    """What a summary has of it."""
    return {} if pruned is None else {"pruned": pruned.told()}


def refuse_drawn(plan: Plan, owner: str, drawn: Sequence[str] | None, count: int, given: Mapping[str, object]) -> None:
    """MeshError where an agent's pruned weights would all be drawn at random.

    ``drawn``: those that no file had, None where a model does not tell, of ``count``; ``given``: modules from Python.
    """
    spec, first = plan.spec.agents[owner], origin(plan, owner)
    begun = plan.spec.agents[first].weights is not None or owner in given or first in given
    if not spec.prune or begun or spec.model is None or spec.model.is_import:
        return
    if drawn is None or len(drawn) == count:
        what = f"{owner}'s weights would be pruned before anything has trained them: they start at random"
        instead = f"agents.{owner}.weights, kdmesh run --from a run's folder, a model with `path`, or a smaller model"
        raise MeshError(what, where=plan.at(f"agents.{owner}.prune"), instead=instead)
