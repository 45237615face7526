"""Private streams: whose samples they are, and whom what is made of them reaches.

A sample is private or not, whatever stream names it. Structure tells much of that before any data are read; the proof
by the samples' ids is `checks/private.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from kdmesh.errors import MeshError
from kdmesh.graph import reach
from kdmesh.graph.edges import LABELS
from kdmesh.graph.inputs import of_agents, whose
from kdmesh.graph.sources import below
from kdmesh.graph.task import task_of
from kdmesh.spec.parties import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.reach import Nodes
    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec

MEASURED = ("validation", "test")


def private_streams(spec: MeshSpec) -> set[str]:
    """The streams that are private, by themselves or by what they are taken from."""
    found = {
        name
        for name in spec.streams
        if _own(spec, chain := _chain(spec, name))
        or any(spec.streams[part].private for part in chain if part in spec.streams)
    }
    return found | _own(spec, spec.starts)


def _own(spec: MeshSpec, names: Iterable[str]) -> set[str]:
    """The stream of what parties have for themselves, where some streams are, or come of, it."""
    return {OWN} & {*names} & {*spec.starts}


def _chain(spec: MeshSpec, name: str) -> list[str]:
    """A stream and what it is taken from, down to one that pools private samples: beneath it none are apart."""
    found = []
    for part in (name, *below(spec, name)):
        found.append(part)
        if part in spec.streams and spec.streams[part].pooled:
            break
    return found


def pooled(spec: MeshSpec, name: str) -> bool:
    """Whether a stream has samples that are private elsewhere, in a simulation in which everyone sees them."""
    return any(spec.streams[part].pooled for part in (name, *below(spec, name)) if part in spec.streams)


def divided(spec: MeshSpec, name: str) -> bool:
    """Whether a stream, or what it is taken from, is divided into shards."""
    whole = _chain(spec, name)
    return bool(_own(spec, whole)) or any(spec.streams[part].shards for part in whole if part in spec.streams)


def users(spec: MeshSpec, edges: list[Edge], consensus: Nodes) -> dict[str, list[str]]:
    """By private stream without shards: the agents that see its samples, in a stream that is taken from it as well."""
    private = private_streams(spec)
    whole = {name for name in private if not divided(spec, name)}
    found: dict[str, dict[str, None]] = {name: {} for name in whole}
    inputs = of_agents(spec, edges) if whole else {}
    for edge in edges if whole else ():
        if edge.stream in whole:
            see = [agent for agent in agents_of(edge, spec, consensus) if (agent, edge.stream) not in inputs]
            for name in {edge.stream, *below(spec, edge.stream)} & whole:
                found[name].update(dict.fromkeys(see))
    return {name: [agent for agent in spec.agents if agent in seen] for name, seen in found.items()}


def agents_of(edge: Edge, spec: MeshSpec, consensus: Nodes) -> list[str]:
    """The agents that see the samples of an edge's stream because of it; of a combined statistic, its source."""
    if edge.discloses and edge.target in consensus:
        return [edge.source]
    return [*([edge.source] if edge.source in spec.agents else []), *reach.readers(edge.target, consensus)]


def check_private(
    spec: MeshSpec, edges: list[Edge], host_of: dict[str, str], consensus: Nodes, registry: Registry
) -> None:
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
    inputs = of_agents(spec, edges)
    told: set[int] = set()  # edges that disclose what they say
    for edge, target, sharded in crossing(spec, edges, consensus):
        if not sharded and host_of[target] == host_of[whose(edge.source, edge.stream, inputs)]:
            continue
        right = "prototypes" if edge.unaligned else "features"
        known = edge.unaligned or edge.target in spec.agents  # a consensus is of several, who have these samples apart
        if edge.discloses == right and known:
            told.add(edge.id)
            continue
        more = f", or `discloses: {right}` on the flow, which says so" if known else ""
        raise MeshError(
            f"stream {edge.stream!r} is private, but {edge.source} -> {target} would carry signals made on it "
            "away from their agent",
            where=edge.where,
            instead=f"teach on a stream that is not private (a public or transfer split){more}",
        )
    told |= _labels(spec, edges, host_of, inputs, registry)
    _refuse_idle(edges, told)
    _rows(spec, edges, consensus, inputs, private)
    _of_task(spec, edges, registry)
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
        if edge.stream not in private and not pooled(spec, edge.stream):
            for name, own in owners.items():
                some, every = _shared(spec, name, edge.stream)
                for agent in agents_of(edge, spec, consensus) if some else ():
                    if agent not in own or (every and len(own) > 1 and divided(spec, name)):
                        refuse(edge, agent, f"samples of {edge.stream!r}", name)


def owners_of(spec: MeshSpec, edges: list[Edge], consensus: Nodes) -> dict[str, list[str]]:
    """By private stream, whose its samples are: the owners of its shards, or who sees it.

    A stream that is not divided is left out if what it is taken from is private, and then says it all; so is what is
    taken of parties' own samples, which all of a party may see.
    """
    private, found = private_streams(spec), dict[str, list[str]]()
    seen = users(spec, edges, consensus)
    for name in private:
        if _own(spec, below(spec, name)):
            continue
        chain = [spec.streams[part] for part in (name, *below(spec, name)) if part in spec.streams]
        shards = next((stream.shards.of for stream in chain if stream.shards is not None), None)
        if _own(spec, (name, *below(spec, name))):
            shards = [agent for party in spec.parties.values() if party.data for agent in party.agents]
        if shards is not None or not private.intersection(below(spec, name)):
            found[name] = seen[name] if shards is None else shards
    return found


def _labels(
    spec: MeshSpec,
    edges: list[Edge],
    host_of: dict[str, str],
    inputs: Mapping[tuple[str, str], Edge],
    registry: Registry,
) -> set[int]:
    """The flows that tell labels of private samples to agents of others; refuses them where they do not say so, and
    what would need such labels without them.
    """
    told, known = set[int](), set[tuple[str, str]]()
    others = [(edge, one) for edge, one in answered_for(spec, edges, inputs) if _leaves(spec, edge, one, host_of)]
    for edge, one in others:
        if edge.source == LABELS:
            if edge.discloses != "labels":
                what = f"labels of the private stream {edge.stream!r} would leave {one} for {edge.target}"
                raise MeshError(what, where=edge.where, instead="discloses: labels, or no flow of labels on it")
            told.add(edge.id)
            known.add((edge.target, edge.stream))
    for edge, one in others:
        asks = [edge.objective.name] if edge.objective is not None and "labels" in edge.needs else []
        for gate in (edge.gate, spec.agents[edge.target].gate):
            asks += [gate.name] if gate is not None and "labels" in registry.find("gates", gate.name).needs else []
        if asks and (edge.target, edge.stream) not in known:
            what = f"{asks[0]} needs labels, and those of the private stream {edge.stream!r} stay with {one}"
            instead = f"another one, or {{from: labels, to: {edge.target}, stream: {edge.stream}, discloses: labels}}"
            raise MeshError(what, where=edge.where, instead=instead)
        if edge.group:
            what = f"{edge.target} is told no column of the private stream {edge.stream!r}"
            raise MeshError(what, where=f"{edge.where}.denominator", instead="leave it out")
    return told


def _of_task(spec: MeshSpec, edges: list[Edge], registry: Registry) -> None:
    """Refuse features and labels of tasks that have not one answer for each sample, or labels that are lists."""
    task = task_of(spec, registry)
    for edge in edges:
        if edge.discloses in ("features", LABELS) and (task.rows != "samples" or task.labels == "relevance"):
            what = f"{edge.discloses} of single samples are not disclosed in task {task.name} by this version"
            raise MeshError(what, where=f"{edge.where}.discloses", instead="a task with one answer for each sample")


def answered_for(
    spec: MeshSpec, edges: list[Edge], inputs: Mapping[tuple[str, str], Edge]
) -> Iterator[tuple[Edge, str]]:
    """The edges on private streams into agents that see what others say of samples; and whose these are."""
    private = private_streams(spec)
    for edge in edges:
        if edge.stream in private and (edge.target, edge.stream) in inputs:
            yield edge, whose(edge.target, edge.stream, inputs)


def _leaves(spec: MeshSpec, edge: Edge, one: str, host_of: Mapping[str, str]) -> bool:
    """Whether what is known of an agent's samples leaves it with an edge, by shards or by hosts."""
    if divided(spec, edge.stream) and not _of_one(spec, edge.stream, one, edge.target):
        return True
    return host_of[edge.target] != host_of[one]


def _rows(
    spec: MeshSpec, edges: list[Edge], consensus: Nodes, inputs: Mapping[tuple[str, str], Edge], private: set[str]
) -> None:
    """Refuse a consensus of what is said of samples that one agent has and another answers for."""
    for edge in edges:
        ends = [edge.source, *reach.readers(edge.target, consensus)]
        if edge.stream in private and edge.target in consensus and any((end, edge.stream) in inputs for end in ends):
            what = f"{edge} is on the private stream {edge.stream!r}, of which some see what others say of its samples"
            raise MeshError(what, where=edge.where, instead="flows from agent to agent, without a consensus")


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
    inputs = of_agents(spec, edges) if private else {}
    for edge in edges if private else ():
        if edge.stream in private and edge.source in spec.agents:
            one = whose(edge.source, edge.stream, inputs)
            for target in reach.readers(edge.target, consensus):
                if target not in (edge.source, one):  # to whose samples it is of, it tells nothing of them
                    yield edge, target, edge.stream in sharded and not _of_one(spec, edge.stream, one, target)


def _of_one(spec: MeshSpec, stream: str, one: str, other: str) -> bool:
    """Whether two agents are of one party, and see the same samples of it on a stream."""
    chain = (stream, *below(spec, stream))
    alike = bool(_own(spec, chain)) and not any(spec.streams[part].shards for part in chain if part in spec.streams)
    return alike and any({one, other} <= {*party.agents} for party in spec.parties.values())


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
