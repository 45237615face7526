"""What leaves a party, and where it goes: who sees what, of a mesh with parties, by its plan alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kdmesh.errors import MeshError
from kdmesh.graph import private
from kdmesh.graph.edges import LABELS
from kdmesh.graph.parties import places
from kdmesh.graph.reach import behind, released, unreleased
from kdmesh.spec.parties import COORDINATOR

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan


MEASURED = "validation, test"
NOISY = "answers with noise"


class Crossing(NamedTuple):
    """Something that goes from one host to another. ``of``: the agent or consensus that says it.

    ``stream``: of whose samples it is, "" for weights; ``private``: whether it tells of private samples, as its flow
    declares; ``back``: whether it is of private samples of the target's own.
    """

    source: str
    target: str
    what: str
    of: str
    stream: str
    when: str
    private: bool = False
    back: bool = False


def crossings(plan: Plan) -> list[Crossing]:
    """Everything that crosses between the parties of a mesh and its coordinator, each kind once; nothing without
    parties.
    """
    if not plan.spec.parties:
        return []
    found = dict.fromkeys([*_pools(plan), *_signals(plan), *_weights(plan), *_measured(plan)])
    return list(found)


def _pools(plan: Plan) -> list[Crossing]:
    """Samples themselves, in a simulation that pools them."""
    readers = {(plan.host_of[end], edge.stream): None for edge in plan.edges if private.pooled(plan.spec, edge.stream)
               for end in (edge.source, edge.target) if end in plan.host_of}  # fmt: skip
    return [
        Crossing(party, host, "samples", ", ".join(one.agents), stream, "simulated", True)
        for host, stream in readers
        for party, one in plan.spec.parties.items()
        if party != host
    ]


def told(plan: Plan) -> list[str]:
    """What flows of a mesh disclose of private samples, in words, for whoever reads its figures and models."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for edge in plan.edges:
        if edge.discloses:
            one = plan.whose(edge.target, edge.stream) if edge.source == LABELS else edge.source
            found.setdefault((edge.discloses, edge.target), {})[one] = None
    for flow in plan.merging.flows:
        if flow.discloses:
            found.setdefault((flow.discloses, flow.target), {})[flow.source] = None
    pools = [
        f"stream {name!r} has private samples in one place: a simulation, which no party could run"
        for name, stream in plan.spec.streams.items()
        if stream.pooled
    ]
    return pools + [
        f"{', '.join(sources)} {'disclose' if len(sources) > 1 else 'discloses'} {what} to {target}, which tell of "
        "private samples: no privacy is claimed"
        for (what, target), sources in found.items()
    ]


def _signals(plan: Plan) -> list[Crossing]:
    """What agents publish, and what is combined of it."""
    found, host_of, hidden = [], plan.host_of, private.private_streams(plan.spec)
    for edge in plan.edges:
        if edge.source == LABELS:
            if edge.discloses and (home := host_of[plan.whose(edge.target, edge.stream)]) != host_of[edge.target]:
                one = plan.whose(edge.target, edge.stream)
                found.append(Crossing(home, host_of[edge.target], LABELS, one, edge.stream, "once", True))
            continue
        node, to = plan.consensus.get(edge.target), host_of.get(edge.target, "")
        if edge.source in plan.consensus:
            inner = plan.consensus[edge.source]
            noisy = inner.releases or (
                released(inner.name, plan.consensus) and not unreleased(inner.name, plan.consensus)
            )
            home, what = inner.home, NOISY if noisy else "consensus"
            for place in places(edge.target, plan.consensus, host_of) if home else ():
                if place != home:
                    found.append(Crossing(home, place, what, edge.source, edge.stream, _times(plan, edge)))
            continue
        to = to if node is None else node.home or host_of[edge.source]
        if to != host_of[edge.source]:
            said = edge.output or "logits"
            back = edge.stream in hidden and host_of[plan.whose(edge.source, edge.stream)] == to
            about = edge.stream, str(edge.refresh), bool(edge.discloses), back
            found.append(Crossing(host_of[edge.source], to, said, edge.source, *about))
    return found


def _times(plan: Plan, edge: Edge) -> str:
    """When a consensus is formed: as its sources publish."""
    return ", ".join(dict.fromkeys(str(end.refresh) for end, _ in behind(edge, plan.consensus)))


def _weights(plan: Plan) -> list[Crossing]:
    found, merging = [], plan.merging
    for flow in merging.flows:
        source, target = (
            plan.pool_home(name) if name in merging.pools else plan.host_of[name] for name in (flow.source, flow.target)
        )
        if source != target:
            when = flow.refresh or ", ".join(dict.fromkeys(str(leaf.refresh) for leaf in merging.behind(flow)))
            found.append(Crossing(source, target, "weights", flow.source, "", when, bool(flow.discloses)))
    return found


def _measured(plan: Plan) -> list[Crossing]:
    """What is told so that quality is known: figures of agents, what those see who see no samples, and of a consensus
    what its sources say.

    Figures of agents whose party has a privacy budget stay with it.
    """
    found = []
    for name, edge in plan.inputs.items():
        home, at = plan.host_of[edge.source], plan.host_of[name]
        if home != at:
            found.append(Crossing(home, at, edge.output or "logits", edge.source, MEASURED, f"to measure {name}"))
    for name in plan.consensus:
        if released(name, plan.consensus):
            continue  # it is not measured
        at = plan.evaluator(name)
        for edge in plan.consensus[name].members:
            for end, _ in behind(edge, plan.consensus):
                home = plan.host_of.get(end.source, at)
                if home != at and not plan.consensus[name].unaligned:
                    said = end.output or "logits"
                    found.append(Crossing(home, at, said, end.source, MEASURED, f"to measure {name}"))
    for party, agents in plan.hosts.items():
        if party != COORDINATOR:
            agents = [name for name in agents if party not in plan.withholding or name in plan.private_agents]
            found += [
                Crossing(party, COORDINATOR, "figures, decisions", name, MEASURED, "to report") for name in agents
            ]
    return found


def check_weights(plan: Plan) -> None:
    """Refuse weights that learned on private samples and go to another party, unless their flow says so.

    Of a mesh without parties the check notes it.
    """
    seen, host_of, owner = (
        private.learned_on(plan.spec, plan.edges, plan.consensus, plan.owner),
        plan.host_of,
        plan.owner,
    )
    for flow in plan.merging.flows:
        streams = {} if flow.source in plan.private_agents else seen.get(owner.get(flow.source, ""), {})
        ends = plan.merging.readers(flow.target) if flow.target in plan.merging.pools else [flow.target]
        leaves = bool(streams) and any(owner[end] != owner[flow.source] for end in ends)
        home = plan.pool_home(flow.target) if flow.target in plan.merging.pools else host_of[flow.target]
        if flow.discloses and not leaves:
            what = f"weights of {flow.source} tell others of no private samples, so `discloses` has no effect"
            raise MeshError(what, where=f"{flow.where}.discloses", instead="leave it out")
        if leaves and plan.spec.parties and home != host_of[flow.source] and not flow.discloses:
            which = " and ".join(map(repr, streams))
            what = f"weights of {flow.source}, which learned on the private stream {which}, would leave its party"
            raise MeshError(what, where=flow.where, instead="discloses: weights, or let signals flow")
