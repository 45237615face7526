"""Whom agents learn from in a mesh: whose signals, weights or texts reach them, also through others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.sources import below

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.graph.plan import Plan

Links = dict[str, dict[str, None]]
"""By node those that it hears, follows, or starts like, each once."""


def origin(plan: Plan, agent: str, path: tuple[str, ...] = ()) -> str:
    """The agent whose initial weights this one starts with: its own, that of `init_of`, or the source of its EMA."""
    if agent in path:
        circle = " -> ".join([*path[path.index(agent) :], agent])
        raise MeshError(
            f"agents start from each other's weights in a cycle: {circle}",
            where=f"agents.{agent}.init_of",
            instead="an agent with initial weights of its own",
        )
    spec = plan.spec.agents[agent]
    other = spec.init_of or (spec.ema.of if spec.ema is not None else None)
    if spec.seed is not None or spec.weights is not None or other is None:
        return agent
    return origin(plan, plan.owner[other], (*path, agent))


def links(plan: Plan) -> Links:
    """By flows, weights that flow, averages, shared and initial weights."""
    found: Links = {}
    for edge in plan.edges:
        found.setdefault(edge.target, {})[edge.source] = None
    for target, sources in plan.merging.sources().items():
        found.setdefault(target, {}).update(dict.fromkeys(sources))
    for name, owner in plan.owner.items():
        ema = plan.spec.agents[owner].ema
        alike = [other for other, of in plan.owner.items() if of == owner]  # what one of them learns all have learned
        found.setdefault(name, {}).update(dict.fromkeys([*alike, origin(plan, owner), *([ema.of] if ema else [])]))
    return found


def reached(start: str, by: Mapping[str, Iterable[str]]) -> dict[str, None]:
    """A node, and all that it hears, also through others."""
    found = {start: None}
    for node in (waiting := [start]):  # grows while it is read
        new = [other for other in by.get(node, ()) if other not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return found


def authors(plan: Plan, stream: str) -> dict[str, None]:
    """The agents by whose words or judgement a stream has its texts: writers, also of what they read, and filters."""
    found: dict[str, None] = {}
    for name in (stream, *below(plan.spec, stream)):
        spec = plan.spec.streams.get(name)
        if spec is None:
            continue
        who = [spec.generated_by] if spec.generated_by is not None and spec.consensus_of is None else []
        who += [one for ref in spec.filters.values() for one in ref.agents]
        found.update((one, None) for one in who if one in plan.spec.agents)
    return found


def heard(plan: Plan) -> Links:
    """The same as :func:`links`, and by texts: whoever learns of a stream hears its authors."""
    found = {node: dict(others) for node, others in links(plan).items()}
    wrote = {stream: authors(plan, stream) for stream in {edge.stream for edge in plan.edges}}
    for edge in plan.edges:
        found[edge.target].update(wrote[edge.stream])
    return found
