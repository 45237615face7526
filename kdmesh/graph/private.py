"""Private streams: whose samples they are, and whom what is made of them reaches.

A sample is private or not, whatever stream names it. Structure tells much of that before any data are read; the proof
by the samples' ids is `checks/private.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from kdmesh.errors import MeshError
from kdmesh.graph import reach
from kdmesh.graph.sources import below
from kdmesh.spec.parties import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.reach import Nodes
    from kdmesh.spec import MeshSpec

MEASURED = ("validation", "test")


def private_streams(spec: MeshSpec) -> set[str]:
    """The streams that are private, by themselves or by what they are taken from."""
    found = {
        name
        for name in spec.streams
        if OWN in _own(spec, below(spec, name))
        or any(spec.streams[part].private for part in (name, *below(spec, name)) if part in spec.streams)
    }
    return found | _own(spec, spec.starts)


def _own(spec: MeshSpec, names: Iterable[str]) -> set[str]:
    """The stream of what parties have for themselves, where some streams are, or come of, it."""
    return {OWN} & {*names} & {*spec.starts}


def divided(spec: MeshSpec, name: str) -> bool:
    """Whether a stream, or what it is taken from, is divided into shards."""
    whole = (name, *below(spec, name))
    return bool(_own(spec, whole)) or any(spec.streams[part].shards for part in whole if part in spec.streams)


def users(spec: MeshSpec, edges: list[Edge], consensus: Nodes) -> dict[str, list[str]]:
    """By private stream without shards: the agents that see its samples, in a stream that is taken from it as well."""
    private = private_streams(spec)
    whole = {name for name in private if not divided(spec, name)}
    found: dict[str, dict[str, None]] = {name: {} for name in whole}
    for edge in edges if whole else ():
        if edge.stream in whole:
            for name in {edge.stream, *below(spec, edge.stream)} & whole:
                found[name].update(dict.fromkeys(agents_of(edge, spec, consensus)))
    return {name: [agent for agent in spec.agents if agent in seen] for name, seen in found.items()}


def agents_of(edge: Edge, spec: MeshSpec, consensus: Nodes) -> list[str]:
    """The agents that see the samples of an edge's stream because of it; of a combined statistic, its source."""
    if edge.discloses and edge.target in consensus:
        return [edge.source]
    return [*([edge.source] if edge.source in spec.agents else []), *reach.readers(edge.target, consensus)]


def check_private(spec: MeshSpec, edges: list[Edge], host_of: dict[str, str], consensus: Nodes) -> None:
    """Refuse what would carry private samples, or signals made on them, away."""
    private = private_streams(spec)
    if not private:
        return _refuse_idle(edges, set())
    for name in sorted(private):
        if (split := next((part for part in below(spec, name) if part in MEASURED), None)) is not None:
            raise MeshError(
                f"stream {name!r} is private, and every agent is measured on {split!r}, from which it is taken",
                where=f"streams.{name}.of",
                instead="of: train",
            )
    told: set[int] = set()  # edges that disclose what they say
    for edge, target, sharded in crossing(spec, edges, consensus):
        if not sharded and host_of[target] == host_of[edge.source]:
            continue
        if edge.discloses and edge.unaligned:
            told.add(edge.id)
            continue
        more = ", or `discloses: prototypes` on the flow, which says so" if edge.unaligned else ""
        raise MeshError(
            f"stream {edge.stream!r} is private, but {edge.source} -> {target} would carry signals made on it "
            "away from their agent",
            where=edge.where,
            instead=f"teach on a stream that is not private (a public or transfer split){more}",
        )
    _refuse_idle(edges, told)
    for name, agents in users(spec, edges, consensus).items():
        apart = sorted({host_of[agent] for agent in agents})
        if len(apart) > 1:
            raise MeshError(
                f"stream {name!r} is private and not divided, and {', '.join(agents)}, who all see its samples, are "
                f"placed on {', '.join(apart)}",
                where=f"streams.{name}",
                instead=f"shards: {{of: [{', '.join(agents)}]}}, or place them on one host",
            )
    owners = owners_of(spec, edges, consensus)
    for edge in edges:
        if edge.stream not in private:
            for name, own in owners.items():
                some, every = _shared(spec, name, edge.stream)
                for agent in agents_of(edge, spec, consensus) if some else ():
                    if agent not in own or (every and len(own) > 1 and divided(spec, name)):
                        refuse(edge, agent, f"samples of {edge.stream!r}", name)


def owners_of(spec: MeshSpec, edges: list[Edge], consensus: Nodes) -> dict[str, list[str]]:
    """By private stream, whose its samples are: the owners of its shards, or who sees it.

    A stream that is not divided is left out if what it is taken from is private, and then says it all.
    """
    private, found = private_streams(spec), dict[str, list[str]]()
    seen = users(spec, edges, consensus)
    for name in private:
        chain = [spec.streams[part] for part in (name, *below(spec, name)) if part in spec.streams]
        shards = next((stream.shards.of for stream in chain if stream.shards is not None), None)
        if _own(spec, (name, *below(spec, name))):
            shards = [agent for party in spec.parties.values() if party.data for agent in party.agents]
        if shards is not None or not private.intersection(below(spec, name)):
            found[name] = seen[name] if shards is None else shards
    return found


def _refuse_idle(edges: list[Edge], told: set[int]) -> None:
    """Refuse flows of signals that say that they disclose something and do not; ``told``: those that do."""
    for edge in edges:
        if edge.discloses == "weights":
            what = f"{edge} carries a signal, and no weights"
            raise MeshError(what, where=f"{edge.where}.discloses", instead="as: weights, or leave it out")
        if edge.discloses and edge.id not in told:
            what = f"{edge} tells others of no private samples, so `discloses` has no effect"
            raise MeshError(what, where=f"{edge.where}.discloses", instead="leave it out")


def learned_on(
    spec: MeshSpec, edges: list[Edge], consensus: Nodes, owner: Mapping[str, str]
) -> dict[str, dict[str, None]]:
    """By the owner of weights, the private streams that its agents see."""
    hidden, found = private_streams(spec), dict[str, dict[str, None]]()
    for edge in edges if hidden else ():
        if edge.stream in hidden:
            for name in agents_of(edge, spec, consensus):
                found.setdefault(owner.get(name, name), {})[edge.stream] = None
    return found


def refuse(edge: Edge, agent: str, what: str, name: str) -> NoReturn:
    """Refuse an edge that shows an agent private samples of others under another name."""
    raise MeshError(
        f"by {edge}, {agent} would see {what} that are private to other agents: they belong to the private stream "
        f"{name!r}",
        where=edge.where,
        instead=f"stream: {name} for the agents that own these samples, or another split (transfer)",
    )


def crossing(spec: MeshSpec, edges: list[Edge], consensus: Nodes) -> Iterator[tuple[Edge, str, bool]]:
    """The edges on private streams, each with an agent whom its signal reaches, and whether its agents own shards."""
    private = private_streams(spec)
    sharded = {name for name in private if divided(spec, name)}
    for edge in edges if private else ():
        if edge.stream in private and edge.source in spec.agents:
            for target in reach.readers(edge.target, consensus):
                if target != edge.source:
                    yield edge, target, edge.stream in sharded and not _of_one(spec, edge.stream, edge.source, target)


def _of_one(spec: MeshSpec, stream: str, one: str, other: str) -> bool:
    """Whether two agents are of one party, and see its samples on a stream."""
    own = _own(spec, (stream, *below(spec, stream)))
    return bool(own) and any({one, other} <= {*party.agents} for party in spec.parties.values())


def _shared(spec: MeshSpec, one: str, other: str) -> tuple[bool, bool]:
    """Whether two streams certainly have samples in common, and whether the other certainly has all of the one.

    They have if one of them is all of what both are taken from.
    """
    first, second = [one, *below(spec, one)], [other, *below(spec, other)]
    common = next((name for name in first if name in second), None)
    if common is None:
        return False, False
    one_whole, other_whole = (
        all(_whole(spec, name) for name in path[: path.index(common)]) for path in (first, second)
    )
    return one_whole or other_whole, other_whole


def _whole(spec: MeshSpec, name: str) -> bool:
    """Whether a stream has every sample of what it is taken from."""
    stream = spec.streams[name]
    whole = all(
        one is None for one in (stream.select, stream.size, stream.rest_of, stream.where, stream.only, stream.without)
    )
    return whole and (stream.shards is None or stream.shards.by != "class")
