"""Flows `as: input` into agents: what another agent says of a sample is what an agent sees, in the sample's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.edges import LABELS
from kdmesh.spec import FlowSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.spec import MeshSpec

ONE = "one agent, which has this input on every stream that it sees"
WITHOUT = ("weight", "gate", "lesson", "objective")
"""Fields of flows that say something of losses, or of when one is added."""


def of_agents(spec: MeshSpec, edges: Iterable[Edge]) -> dict[tuple[str, str], Edge]:
    """The flow that an agent sees in the place of samples, by agent and stream."""
    return {(edge.target, edge.stream): edge for edge in edges if edge.as_ == "input" and edge.target in spec.agents}


def whose(agent: str, stream: str, inputs: Mapping[tuple[str, str], Edge]) -> str:
    """The agent whose samples an agent's answers on a stream are of: itself, or that at the root of what it sees.

    ``inputs``: of :func:`of_agents`, without a cycle.
    """
    while (edge := inputs.get((agent, stream))) is not None:
        agent = edge.source
    return agent


def order(agents: Iterable[str], sources: Mapping[str, str]) -> list[str]:
    """Agents in their order, each after the one whose output it sees; ``sources``: by agent."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        if name not in found:
            if name in sources:
                add(sources[name])
            found[name] = None

    for name in agents:
        add(name)
    return list(found)


def check(spec: MeshSpec, edges: list[Edge], owner: Mapping[str, str]) -> None:
    """Refuse inputs that leave no agent, or that are not there wherever their agent is forwarded."""
    inputs = of_agents(spec, edges)
    if not inputs:
        return
    first: dict[str, Edge] = {}
    for edge in edges:
        if edge.as_ == "input" and edge.target in spec.agents:
            _single(spec, edge, first.setdefault(edge.target, edge))
    _circle(first)
    for edge in edges:
        for name in (edge.source, edge.target):
            if name in first and (name, edge.stream) not in inputs:
                what = (
                    f"{name} sees the output of {first[name].source} in the place of samples, and of {edge.stream!r} "
                )
                what += "there is none"
                raise MeshError(what, where=edge.where, instead=f"{{from: {first[name].source}, to: {name}, as: input, "
                                f"stream: {edge.stream}}}")  # fmt: skip
        if edge.source in first:
            _read(edge, inputs[edge.source, edge.stream])
    for name in first:
        _agent(spec, owner, name)


def _single(spec: MeshSpec, edge: Edge, first: Edge) -> None:
    """One flow into an agent, from an agent, that says nothing of losses."""
    if edge.source not in spec.agents:
        what = "labels are no input" if edge.source == LABELS else f"{edge.source} is a consensus"
        raise MeshError(f"an input leaves an agent, and {what}", where=f"{edge.where}.from", instead="an agent")
    if edge.source == edge.target:
        raise MeshError(f"{edge.target} would see its own output", where=edge.where, instead="another agent")
    for name in WITHOUT:
        if getattr(edge, name) != FlowSpec.model_fields[name].get_default():
            what = f"an input has no loss and is always there, so `{name}` has no effect"
            raise MeshError(what, where=f"{edge.where}.{name}", instead="leave it out")
    if edge is not first and (edge.source, edge.output, edge.live) != (first.source, first.output, first.live):
        what = f"{edge.target} has two inputs, {first} and {edge}"
        instead = f"{ONE}; another agent with `weights_of: {edge.target}` for the other input"
        raise MeshError(what, where=edge.where, instead=instead)
    if edge.stale in ("snapshot", "recorded"):
        what = "an input is live or published"
        raise MeshError(what, where=f"{edge.where}.stale", instead="stale: publish, or refresh: step")
    stream = spec.streams.get(edge.stream)
    if stream is not None and (stream.generated_by or stream.replay):
        how = "that an agent generates" if stream.generated_by else "that replays another"
        what = f"inputs on a stream {how} are not run by this version"
        raise MeshError(what, where=f"{edge.where}.stream", instead="a stream `of` a split")


def _circle(first: Mapping[str, Edge]) -> None:
    for name in first:
        path = [name]
        while path[-1] in first:
            path.append(first[path[-1]].source)
            if path[-1] in path[:-1]:
                circle = " -> ".join(reversed(path[path.index(path[-1]) :]))
                raise MeshError(
                    f"agents see each other's outputs in a cycle: {circle}",
                    where=first[name].where,
                    instead="remove one of these flows",
                )


def _read(edge: Edge, given: Edge) -> None:
    """What leaves an agent that has an input, given its input on that stream."""
    if edge.stale == "snapshot" or (edge.stale == "publish" and given.live):
        what = f"{edge.source} sees what {given.source} says in the step itself, so nothing of it can be published"
        if edge.stale == "snapshot":
            what = f"old weights of {edge.source} have no input of then"
        instead = f"refresh: step here, or `refresh: epoch` on {given}, which is then published too"
        raise MeshError(what, where=edge.where, instead=instead if given.live else "stale: publish")


def _agent(spec: MeshSpec, owner: Mapping[str, str], name: str) -> None:
    """What an agent that sees no samples has no use of."""
    if spec.agents[name].view.augment:
        what = f"{name} sees no samples, so it has none to augment"
        raise MeshError(what, where=f"agents.{name}.view.augment", instead="at the agent whose output it sees")
    if spec.agents[owner[name]].update == "frozen":
        what = f"{name} is frozen: inputs of agents that do not train are not run by this version"
        raise MeshError(what, where=f"agents.{owner[name]}.update", instead="update: grad")
    for stream, one in spec.streams.items():
        if one.generated_by == name:
            what = f"{name} sees no samples, so it can write none"
            raise MeshError(what, where=f"streams.{stream}.generated_by", instead="an agent that sees samples")
