"""Rounds in which not all parties take part: who is drawn, and what meshes this is for."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.edges import LABELS
from kdmesh.graph.program import Repeat
from kdmesh.graph.reach import closure
from kdmesh.offers import AGE
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec


ONCE = "once"
KEEP = "participation: {stale: keep} beside `parties`, or another rule"


def check(plan: Plan) -> None:
    """Refuse `participation` where there are no rounds of parties to take part in, or not so many parties."""
    spec, asked = plan.spec, plan.spec.participation
    for node in plan.consensus.values():
        if AGE in node.needs and (asked is None or asked.stale != "keep"):
            what = f"rule {node.rule.name!r} weighs last answers of parties that are away, and none are kept"
            raise MeshError(what, where=plan.at(f"consensus.{node.name}.rule"), instead=KEEP)
    if asked is None:
        return
    where = "participation"
    if not spec.parties:
        raise MeshError("there are no parties that could take part", where=where, instead="parties: {...}, or leave it")
    rounds = [line for stage in plan.stages for line in stage.program.body if isinstance(line, Repeat) and line.rounds]
    inner = any(isinstance(line, Repeat) for repeat in rounds for line in repeat.body)
    if len(plan.stages) != 1 or len(rounds) != 1 or inner:
        here = "its rounds have an inner one"
        if len(plan.stages) != 1:
            here = f"there are {len(plan.stages)} stages: {', '.join(stage.name for stage in plan.stages[:5])}"
        elif len(rounds) != 1:
            here = f"it has {len(rounds) or 'none'}"
        what = f"parties take part round by round: one stage, whose program has one repetition (`repeat`); here {here}"
        raise MeshError(what, where=where, instead="program: [{of: [...], repeat: 3, do: [...]}], or leave it out")
    if edge := next((edge for edge in plan.edges if edge.discloses in ("features", "labels")), None):
        what = f"{edge} brings what one party's samples are, on which others train also where that party is away"
        raise MeshError(what, where=edge.where, instead="all parties in all rounds: leave `participation` out")
    if asked.quorum > len(spec.parties):
        what = f"{asked.quorum} parties, and there are {len(spec.parties)}"
        raise MeshError(what, where=f"{where}.quorum", instead=f"{len(spec.parties)} at most")
    for number, names in enumerate(asked.attendance or ()):
        for name in names:
            if name not in spec.parties:
                instead = nearest(name, spec.parties, "parties")
                raise MeshError(f"there is no party {name!r}", where=f"{where}.attendance.{number}", instead=instead)
        if not names:
            raise MeshError("nobody takes part", where=f"{where}.attendance.{number}", instead="at least one party")
    if asked.attendance is not None:
        if len(asked.attendance) < rounds[0].times:
            what = f"who takes part in {len(asked.attendance)} rounds, and there may be {rounds[0].times}"
            raise MeshError(what, where=f"{where}.attendance", instead="the record of as many rounds")
        if asked.fraction < 1 or asked.quorum > 1 or asked.timeout is not None:
            what = "who takes part is said already, so `fraction`, `quorum` and `timeout` have no effect"
            raise MeshError(what, where=f"{where}.attendance", instead="leave those out")


def awaited(plan: Plan) -> str:
    """Why all parties must have come before the first round; nothing where it may begin without some.

    Who comes later begins as its file says, which is what it would be had it been there and done nothing.
    """
    spec = plan.spec
    if uncounted := [name for name, one in spec.parties.items() if one.data is not None and one.samples is None]:
        return f"`samples` is not said of {', '.join(uncounted)}"
    for stage in plan.stages:
        if not stage.program.body or not isinstance(stage.program.body[0], Repeat):
            return "the program begins with something else than rounds"
        if any(flow.refresh == ONCE for flow in plan.merging.flows):
            return "weights flow before the first round"
        edges = [edge for phase in stage.phases.values() for edge in phase.edges]
        for edge in closure(edges, plan.consensus):
            before = edge.refresh == ONCE or edge.as_ == "input" or edge.source not in {*stage.agents, *plan.consensus}
            if edge.source != LABELS and before and not edge.live:
                return f"{edge} is sent before the first round"
    return ""


def drawn(spec: MeshSpec, number: int) -> list[str]:
    """The parties that are asked to take part in a round, from 1, in the order of the file."""
    asked, names = spec.participation, list(spec.parties)
    if asked is None:
        return names
    if asked.attendance is not None:
        return [name for name in names if name in asked.attendance[number - 1]]
    count = max(asked.quorum, round(asked.fraction * len(names)))
    if count == len(names):
        return names
    chosen = random.Random(mix(spec.seed, "participation", number)).sample(range(len(names)), count)
    return [names[at] for at in sorted(chosen)]
