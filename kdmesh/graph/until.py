"""Rounds that end early: of sources whose answers can agree, and of which consensus, is known before a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.renewal import measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.graph.plan import Plan
    from kdmesh.spec import ProgramItem, Until

SOME = 8  # names at most in a message


def refuse_until(plan: Plan, item: ProgramItem, where: str) -> None:
    """Raise MeshError where a line, or one that it repeats, is to end by an agreement that nothing tells."""
    if item.until is not None:
        field = "patience" if item.until.agreement is None else "agreement"
        if not plan.task.decides:
            what = f"answers of task {plan.task.name} are {plan.task.labels}, of which agreement is not defined"
            instead = "leave it out: the repetition then has all its rounds"
            raise MeshError(what, where=plan.at(f"{where}.until.{field}"), instead=instead)
        _agreeing(plan, item, item.until, field, plan.at(f"{where}.until"))
    for number, line in enumerate(item.do or ()):
        refuse_until(plan, line, f"{where}.do.{number}")


def _agreeing(plan: Plan, item: ProgramItem, until: Until, field: str, where: str) -> None:
    """It goes by the only consensus that is published to in these rounds, or by the one that is named."""
    heard = list(dict.fromkeys(name for line in _publishing(item) for name in measured(plan, *line)))
    if not heard:
        what = "these rounds publish to no consensus whose sources could agree, so that nothing ends them early"
        instead = "leave it out, or {publish: [...]} in `do`, to a consensus"
        raise MeshError(what, where=where, instead=instead)
    if until.of is not None and until.of not in heard:
        what = f"these rounds publish nothing to {until.of!r}"
        raise MeshError(what, where=f"{where}.of", instead=nearest(until.of, heard, "consensus nodes"))
    if until.of is None and len(heard) > 1:
        names = ", ".join(heard[:SOME]) + (" ..." if len(heard) > SOME else "")
        what = f"these rounds publish to {len(heard)} consensus nodes, and it is not said whose sources are to agree"
        instead = f"until: {{{field}: {getattr(until, field):g}, of: {heard[0]}}}; of: one of {names}"
        raise MeshError(what, where=where, instead=instead)


def _publishing(item: ProgramItem) -> Iterator[tuple[list[str], str | None]]:
    """Who publishes in a line, and in those that it repeats, each to which consensus; None: to all."""
    if item.publish is not None:
        yield item.publish, item.to
    for line in item.do or ():
        yield from _publishing(line)
