"""Weights that flow: flows `as: weights`, and the consensus nodes that combine weights.

They are no edges of a step: at a time, an agent takes the average of the weights that arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import networkx as nx

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.edges import LABELS
from kdmesh.spec import FlowSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kdmesh.graph.stages import WeightSets
    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec, RuleRef

SAMPLES = "samples"
"""As the `weight` of a flow: how many samples its source has on the flow's stream."""
OF_SIGNALS = ("signal", "tap", "objective", "denominator", "gate", "stale", "sees", "detach", "mode", "lesson")
"""Fields of flows that say something of signals and losses."""
OUT = "leave it out"


@dataclass(slots=True)
class WeightFlow:
    """Weights from one node to another. ``refresh`` is None on those that leave a consensus.

    ``weight``: the share of what arrives, before division by the sum of shares; `samples`: as many as its source has
    on ``stream``.
    """

    id: int
    where: str
    source: str
    target: str
    weight: float | str
    refresh: str | None
    stream: str
    discloses: str = ""  # weights that learned on private samples, as the file says

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


@dataclass(slots=True)
class Pool:
    """A consensus of weights. ``inputs`` and ``readers`` are flows, in declared order."""

    name: str
    rule: RuleRef
    factory: str
    include_self: bool
    stateful: bool
    inputs: list[WeightFlow] = field(default_factory=list)
    readers: list[WeightFlow] = field(default_factory=list)


@dataclass
class Merging:
    """All flows of weights in a mesh."""

    flows: list[WeightFlow] = field(default_factory=list)
    pools: dict[str, Pool] = field(default_factory=dict)

    def into(self, agents: Iterable[str]) -> list[WeightFlow]:
        """The flows that end at some agents."""
        ends = set(agents)
        return [flow for flow in self.flows if flow.target in ends]

    def behind(self, flow: WeightFlow) -> list[WeightFlow]:
        """The flows that leave agents whose weights a flow brings, also through consensus nodes; each once."""
        if flow.source not in self.pools:
            return [flow]
        found = [leaf for inner in self.pools[flow.source].inputs for leaf in self.behind(inner)]
        return [leaf for number, leaf in enumerate(found) if leaf not in found[:number]]

    def readers(self, pool: str) -> list[str]:
        """The agents that a consensus reaches, also through another, each once."""
        found: dict[str, None] = {}
        for flow in self.pools[pool].readers:
            found.update(dict.fromkeys(self.readers(flow.target) if flow.target in self.pools else [flow.target]))
        return list(found)

    def sources(self) -> dict[str, list[str]]:
        """By agent into which weights flow, the agents that they are of."""
        found: dict[str, dict[str, None]] = {}
        for flow in self.flows:
            if flow.target not in self.pools:
                found.setdefault(flow.target, {}).update((leaf.source, None) for leaf in self.behind(flow))
        return {target: list(sources) for target, sources in found.items()}


def resolve(spec: MeshSpec, registry: Registry, origins: Mapping[str, str]) -> Merging:
    """Return the flows `as: weights`, one per pair of ends, and the consensus nodes at which they end.

    ``origins``: where drawn flows and nodes were written.
    """
    found = Merging()
    targets = [*spec.agents, *spec.consensus]
    signals: dict[str, str] = {}  # consensus -> where a signal flows into it, or out of it
    for number, flow in enumerate(spec.flows):
        where = origins.get(f"flows.{number}", f"flows.{number}")
        if flow.as_ != "weights":
            signals.update((name, where) for name in (*flow.from_, *flow.to) if name in spec.consensus)
            continue
        _fields(spec, flow, where)
        several = len(flow.from_) > 1 or len(flow.to) > 1
        for end, names in (("from", flow.from_), ("to", flow.to)):
            for name in names:
                if name not in targets:
                    what = "labels have no weights" if name == LABELS else f"unknown agent or consensus {name!r}"
                    instead = nearest(name, targets, "known nodes", several=True)
                    raise MeshError(what, where=f"{where}.{end}", instead=instead)
        for source in flow.from_:
            for target in flow.to:
                if not (several and source == target):
                    found.flows.append(_flow(spec, flow, len(found.flows), where, source, target))
    ends = {end for flow in found.flows for end in (flow.source, flow.target)}
    for name, node in spec.consensus.items():
        if name in ends or node.space == "weights":
            found.pools[name] = _pool(spec, registry, name, origins.get(f"consensus.{name}", f"consensus.{name}"))
            if name in signals:
                what = f"consensus {name!r} combines weights, and a signal flows here"
                raise MeshError(what, where=signals[name], instead="two consensus nodes, or `as: weights`")
    for one in found.flows:
        if one.target in found.pools:
            found.pools[one.target].inputs.append(one)
        if one.source in found.pools:
            found.pools[one.source].readers.append(one)
    _whole(found, origins)
    return found


def _fields(spec: MeshSpec, flow: FlowSpec, where: str) -> None:
    """Refuse fields that say something of signals, and times at which weights do not flow."""
    for name in OF_SIGNALS:
        if getattr(flow, name) != FlowSpec.model_fields[name].get_default():
            what = f"weights flow here, and no signal or loss, so `{name}` has no effect"
            raise MeshError(what, where=f"{where}.{name}", instead=OUT)
    if flow.stream is not None and flow.weight != SAMPLES:
        what = "weights are made on no stream, so `stream` has no effect"
        instead = f"{OUT}, or weight: samples, to count the source's samples on it"
        raise MeshError(what, where=f"{where}.stream", instead=instead)
    stream = flow.stream or "train"
    if stream not in {*spec.starts, *spec.streams} and spec.data is not None:
        instead = nearest(stream, {*spec.starts, *spec.streams}, "streams")
        raise MeshError(f"unknown stream {stream!r}", where=f"{where}.stream", instead=instead)
    if flow.weight != SAMPLES and not (isinstance(flow.weight, float) and 0 <= flow.weight < float("inf")):
        what = "the weight of a flow `as: weights` is its share of what arrives"
        raise MeshError(what, where=f"{where}.weight", instead="a number of 0 and more, or samples")
    if flow.refresh == "step":
        raise MeshError(
            "weights flow between steps, not within one",
            where=f"{where}.refresh",
            instead="1 steps, epoch, round or once; `update: {ema: {of: AGENT}}` follows at every update",
        )


def _flow(spec: MeshSpec, flow: FlowSpec, number: int, where: str, source: str, target: str) -> WeightFlow:
    """One flow; what only one kind of end allows is refused here."""
    if source not in spec.agents and flow.refresh is not None:
        what = f"`refresh` stands on flows that leave an agent, not on {source}"
        raise MeshError(what, where=f"{where}.refresh", instead="put it on the flows into the consensus")
    if target not in spec.agents and flow.weight != 1.0:
        what = "what flows into a consensus is weighed by its rule, so `weight` has no effect"
        raise MeshError(what, where=f"{where}.weight", instead="a rule with weights, {weighted: {weights: [...]}}")
    if source not in spec.agents and flow.weight == SAMPLES:
        raise MeshError(f"{source} has no samples", where=f"{where}.weight", instead="a number")
    assert not hasattr(flow.weight, "start")
    if flow.discloses not in (None, "weights"):
        what = f"weights flow here, and no {flow.discloses}"
        raise MeshError(what, where=f"{where}.discloses", instead="discloses: weights")
    given = flow.stream or "train", flow.discloses or ""
    return WeightFlow(number, where, source, target, flow.weight, flow.refresh, *given)


def _pool(spec: MeshSpec, registry: Registry, name: str, where: str) -> Pool:
    """A consensus of weights, whose rule combines such, and has no settings that are for signals."""
    node = spec.consensus[name]
    offer = registry.find("consensus", node.rule.name, f"{where}.rule")
    registry.check("consensus", node.rule.name, node.rule.config, f"{where}.rule")
    if node.space not in (None, "weights"):
        what = f"weights flow into {name}, so its space is `weights`"
        raise MeshError(what, where=f"{where}.space", instead=OUT)
    for field_, usual in (("temperature", None), ("trained", False), ("per_target", False)):
        if getattr(node, field_) != usual:
            what = f"{name} combines weights, so `{field_}` has no effect"
            raise MeshError(what, where=f"{where}.{field_}", instead=OUT)
    if "weights" not in offer.spaces:
        fit = [one.name for one in registry.offers("consensus") if "weights" in one.spaces]
        what = f"rule {node.rule.name!r} does not combine weights"
        raise MeshError(what, where=f"{where}.rule", instead=f"one of: {', '.join(fit)}")
    asks = {"labels": offer.needs_labels, "inputs": offer.inputs, "errors": offer.needs_errors}
    asks |= {"a column": bool(offer.needs_column), "weights that train": offer.trained}
    if asked := [*(noun for noun, wanted in asks.items() if wanted), *offer.needs]:
        what = f"rule {node.rule.name!r} needs {asked[0]}, and weights are of no samples and of no step"
        raise MeshError(what, where=f"{where}.rule", instead="a rule that combines weights alone")
    return Pool(name, node.rule, offer.factory, node.include_self, offer.stateful)


def _whole(found: Merging, origins: Mapping[str, str]) -> None:
    """Every consensus of weights has ends on both sides, and none feeds itself."""
    for pool in found.pools.values():
        where = origins.get(f"consensus.{pool.name}", f"consensus.{pool.name}")
        if not pool.inputs:
            instead = f"add {{from: [...], to: {pool.name}, as: weights}}"
            raise MeshError("no weights flow into this consensus", where=where, instead=instead)
        if not pool.readers:
            instead = f"add {{from: {pool.name}, to: AGENT, as: weights}}"
            raise MeshError("its weights flow nowhere", where=where, instead=instead)
    inner = [(flow.source, flow.target) for flow in found.flows if {flow.source, flow.target} <= found.pools.keys()]
    graph = nx.DiGraph(inner)
    if not nx.is_directed_acyclic_graph(graph):
        names = [source for source, _ in nx.find_cycle(graph)]
        what = f"consensus nodes feed each other in a cycle: {' -> '.join([*names, names[0]])}"
        raise MeshError(what, where="flows", instead="remove one of these flows")
    for pool in found.pools.values():
        where = origins.get(f"consensus.{pool.name}", f"consensus.{pool.name}")
        own = {flow.source for flow in pool.inputs}
        if not pool.include_self and pool.stateful:
            what = f"rule {pool.rule.name!r} keeps count, so it combines once for all readers"
            raise MeshError(what, where=f"{where}.include_self", instead=OUT)
        if not pool.include_self and not own & set(found.readers(pool.name)):
            what = "none of its readers is one of its sources, so this has no effect"
            raise MeshError(what, where=f"{where}.include_self", instead=OUT)
        if not pool.include_self and len(own) == 1:
            what = "it has one source, of which nothing is left for that source itself"
            raise MeshError(what, where=f"{where}.include_self", instead="more sources, or leave it out")


def settle(spec: MeshSpec, found: Merging, sets: WeightSets, graph: nx.DiGraph) -> None:
    """Fill in `refresh`: `once` between stages; where both ends train together, the file must say when."""
    component = {node: number for number, nodes in enumerate(nx.strongly_connected_components(graph)) for node in nodes}
    for flow in found.flows:
        if flow.refresh is None and flow.source in spec.agents:
            if component[sets.of(flow.source)] == component[sets.of(flow.target)]:
                raise MeshError(
                    f"when do weights flow? {flow} is in a cycle, so neither can finish first",
                    where=f"{flow.where}.refresh",
                    instead="round, with a program that publishes; epoch; or N steps",
                )
            flow.refresh = "once"


def check(spec: MeshSpec, found: Merging, sets: WeightSets) -> None:
    """Weights flow into agents that can take them, and something flows into each that is merged of others."""
    for flow in found.flows:
        if flow.target not in spec.agents:
            continue
        owner = sets.of(flow.target)
        if spec.agents[owner].update not in ("grad", "merged"):
            ema = spec.agents[owner].ema
            how = "is frozen" if ema is None else f"follows {ema.of}"
            what = f"{flow.target} {how}, so no weights can flow into it"
            raise MeshError(what, where=flow.where, instead="let the flow end elsewhere, or `update: merged`")
        into = found.into(sets.agents[owner])
        sources = {sets.of(leaf.source) for other in into for leaf in found.behind(other)}
        if sources == {owner} and not any(pool.stateful for pool in found.pools.values()):
            what = f"only its own weights flow into {flow.target}, which changes nothing"
            raise MeshError(what, where=flow.where, instead="a flow from another agent as well, or remove it")
    reached = {sets.of(flow.target) for flow in found.flows}
    for name, agent in spec.agents.items():
        if agent.update == "merged" and name not in reached:
            raise MeshError(
                "nothing flows into this agent, whose weights are merged of others",
                where=f"agents.{name}.update",
                instead=f"add {{from: [...], to: {name}, as: weights}}",
            )
        if agent.ema is not None and spec.agents[sets.of(agent.ema.of)].update == "merged":
            raise MeshError(
                f"{name} follows {agent.ema.of} at its updates, and {agent.ema.of} has none: its weights are merged",
                where=f"agents.{name}.update.ema.of",
                instead=f"update: merged, and flows `as: weights` from {agent.ema.of} and from {name} itself",
            )


def counted(found: Merging) -> Iterator[tuple[Pool, WeightFlow]]:
    """Every consensus whose rule keeps count, with each flow of an agent behind it."""
    for pool in found.pools.values():
        if pool.stateful:
            for flow in pool.inputs:
                for leaf in found.behind(flow):
                    yield pool, leaf
