"""A teacher that nobody trained: weights that start at random and never change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.heard import origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan


def drawn_of(module: nn.Module) -> tuple[list[str] | None, int]:
    """The parameters that no file had, as a model of texts tells them, None where a model does not; and all of them."""
    drawn: list[str] | None = getattr(module, "drawn", None)
    return drawn, len(list(module.parameters()))


def tell(plan: Plan, found: Checked, owner: str, drawn: Sequence[str] | None, count: int) -> None:
    """Refuse frozen weights of which some were read and others would be drawn; note those that are drawn whole.

    And refuse a seed of weights of which none is drawn.
    """
    first = origin(plan, owner)
    spec = plan.spec.agents[first]
    if drawn == [] and spec.seed is not None:
        what = f"the checkpoint has every weight of {first}, so that its `seed` draws none, and has no effect"
        raise MeshError(
            what, where=f"{plan.at(f'agents.{first}')}.seed", instead="leave it out, or a model without `path`"
        )
    if spec.model is not None and not spec.model.is_import and (layer := spec.model.config.get("new_head")):
        found.notes.append(f"{owner}: begins with its checkpoint, but for {layer}, drawn anew by its seed")
    if not count or owner in plan.trainable or spec.weights is not None or spec.model is None or spec.model.is_import:
        return
    heard = {plan.owner.get(end) for edge in plan.edges for end in (edge.source, edge.target)}
    if owner not in heard | {plan.owner.get(flow.source) for flow in plan.merging.flows}:
        return  # it only owns a shard: nobody hears it
    if drawn is not None and 0 < len(drawn) < count:
        more = f" and {len(drawn) - 1} more" if len(drawn) > 1 else ""
        raise MeshError(
            f"{owner} is frozen, and its checkpoint has no {drawn[0]}{more}: they would be random and never trained",
            where=f"agents.{owner}.update",
            instead="update: grad, which trains them, or a checkpoint of a model that was trained for this task",
        )
    if drawn is None or drawn:
        found.notes.append(
            f"{owner} is frozen and its weights are random: it was never trained. To load trained weights, "
            f"write agents.{owner}.weights{'' if drawn is None else ', or a model with `path`'}"
        )
