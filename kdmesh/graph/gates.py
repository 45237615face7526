"""Gates: what each looks at, as edges of the graph, and which of them a mesh cannot have.

What an agent that a gate names with `of` answers reaches the gate as any signal does: over an edge `as: gate` to the
agent that is gated, which carries no loss. So stages, steps, hosts and privacy treat it as they treat a flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.graph import reach
from kdmesh.graph.edges import Edge
from kdmesh.graph.nodes import labelled
from kdmesh.graph.private import divided
from kdmesh.graph.program import Repeat
from kdmesh.graph.renewal import measured, publications
from kdmesh.offers import MEASURED, PROBABILITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.graph.plan import Plan
    from kdmesh.offers import GateOffer
    from kdmesh.plugins import Registry
    from kdmesh.spec import GateRef, MeshSpec

OUT = "leave it out"
OF_FLOWS = ("signal", "confidence", "losses", "counted")
"""Facts about a flow, which a gate of an agent's update has not."""
OF_BATCHES = (*OF_FLOWS, "own", "other", "labels", "ids")
"""Facts about the rows of one batch."""
OF_VALIDATION = {"metrics", *MEASURED}
"""Facts about the agent's figures on validation."""


def informants(spec: MeshSpec, edges: list[Edge], registry: Registry) -> list[Edge]:
    """Check each gate by itself; returns an edge for each that looks at another agent, to stand after all ``edges``."""
    found: list[Edge] = []
    for edge in edges:
        if edge.gate is not None:
            where = f"{edge.where}.gate"
            if edge.target not in spec.agents:
                what = "a flow into a consensus has no loss, so there is nothing to gate"
                raise MeshError(what, where=where, instead="a gate on the flow from the consensus")
            if _looks(spec, registry, edge.gate, edge.target, where):
                found.append(_informs(len(edges) + len(found), edge.gate.of, edge, where))
    for name, agent in spec.agents.items():
        if agent.gate is not None:
            where = f"agents.{name}.gate"
            _updates(spec, registry, edges, name, where)
            if _looks(spec, registry, agent.gate, name, where):
                own = next(edge for edge in edges if edge.target == name and edge.as_ == "target")
                found.append(_informs(len(edges) + len(found), agent.gate.of, own, where, flow=False))
    for name, stream in spec.streams.items():
        if stream.mix is not None and stream.mix.gate is not None:
            where = f"streams.{name}.mix.gate"
            if stream.generated_by is None:
                what = f"a gate is asked where an agent writes, and no agent writes {name!r}"
                raise MeshError(what, where=where, instead="share: 0.5")
            _mixes(spec, registry, stream.mix.gate, stream.generated_by, where)
    return found


def _mixes(spec: MeshSpec, registry: Registry, gate: GateRef, writer: str, where: str) -> None:
    """Refuse a gate of a mix that looks at a batch: it says which batch there is to be."""
    offer: GateOffer = registry.find("gates", gate.name, where)
    if offer.rows or (needs := [need for need in offer.needs if need in OF_BATCHES]):
        what = f"gate {gate.name!r} " + ("weighs rows" if offer.rows else f"needs {needs[0]}") + " of a batch"
        instead = "a gate by step, epoch, round or metrics"
        raise MeshError(f"{what}, and it is to say whether that batch is written", where=where, instead=instead)
    _looks(spec, registry, gate, writer, where)


def _looks(spec: MeshSpec, registry: Registry, gate: GateRef, agent: str, where: str) -> bool:
    """Check a gate's settings; returns whether it looks at another agent."""
    offer: GateOffer = registry.find("gates", gate.name, where)
    registry.check("gates", gate.name, gate.settings, where)
    if not gate.of:
        if "other" in offer.needs:
            what = f"gate {gate.name!r} compares with the logits of another agent, and none is named"
            raise MeshError(what, where=where, instead=f"{{{gate.name}: {{of: AGENT}}}}")
        return False
    where = f"{where}.{gate.name}.of"
    if not {"other", "losses"} & set(offer.needs):
        raise MeshError(f"gate {gate.name!r} looks at no other agent, so `of` has no effect", where=where, instead=OUT)
    others = [name for name in spec.agents if name != agent]
    if gate.of not in others:
        what = f"{agent} looks at its own logits anyway" if gate.of == agent else f"unknown agent {gate.of!r}"
        raise MeshError(what, where=where, instead=nearest(gate.of, others, "agents"))
    return True


def _updates(spec: MeshSpec, registry: Registry, edges: list[Edge], name: str, where: str) -> None:
    """Refuse a gate of an agent whose weights gradient descent does not move, and one that is made for flows."""
    agent, gate = spec.agents[name], spec.agents[name].gate
    assert gate is not None
    if agent.weights_of is not None:
        what = f"{name} shares the weights of {agent.weights_of}, which are updated once for both"
        raise MeshError(what, where=where, instead=f"write it at {agent.weights_of}, or on a flow")
    if agent.update != "grad":
        follows = agent.ema is not None
        how = "follows another: it stays where that one is not updated" if follows else f"is {agent.update}"
        raise MeshError(f"{name} {how}, so there is no update to gate", where=where, instead=OUT)
    offer: GateOffer = registry.find("gates", gate.name, where)
    flows = [need for need in offer.needs if need in OF_FLOWS]
    if offer.rows or flows:
        what = f"gate {gate.name!r} " + (f"needs the {flows[0]} of a flow" if flows else "weighs the rows of a flow")
        instead = f"flows: [{{..., gate: {gate.name}}}]"
        raise MeshError(f"{what}, and an agent's update has several", where=where, instead=instead)
    if not set(OF_BATCHES) & set(offer.needs):
        return
    views = [name, *(view for view, other in spec.agents.items() if other.weights_of == name)]
    taught = [edge for edge in edges if edge.target in views and edge.as_ == "target"]
    streams = dict.fromkeys(edge.stream for edge in taught)
    if len(streams) != 1:
        on, who = " and ".join(streams) or "none", name if len(views) == 1 else f"the weights of {name}"
        what = f"gate {gate.name!r} looks at one batch, and {who} learn{'s' * (len(views) == 1)} on {on} in a step"
        raise MeshError(what, where=where, instead="gates on its flows")
    if not any(edge.target == name for edge in taught):
        what = f"gate {gate.name!r} looks at a batch of {name}, and flows reach only {' and '.join(views[1:])}"
        raise MeshError(what, where=where, instead="gates on those flows")


def _informs(number: int, source: str, gated: Edge, where: str, flow: bool = True) -> Edge:
    """The edge from an agent to a gate; ``flow``: that of the flow ``gated``, not of its target's update."""
    return Edge(
        id=number, where=where, source=source, target=gated.target, as_="gate", signal="logits", stream=gated.stream,
        objective=None, form="logits", weight=1.0, refresh=None, stale=None, sees="before", detach=True, mode="auto",
        lesson=gated.lesson if flow else None, tap=None, gated=gated.id if flow else None,
    )  # fmt: skip


def gates(plan: Plan) -> Iterator[tuple[GateRef, str, Edge | None, str]]:
    """Every gate, with the agent that it is of, its flow or None where it has none, and where it stands.

    Of a stream into which given samples are mixed that is the agent that writes it.
    """
    for edge in plan.edges:
        if edge.gate is not None:
            yield edge.gate, edge.target, edge, f"{edge.where}.gate"
    for name, agent in plan.spec.agents.items():
        if agent.gate is not None:
            yield agent.gate, name, None, f"agents.{name}.gate"
    for name, stream in plan.spec.streams.items():
        if stream.mix is not None and stream.mix.gate is not None and stream.generated_by in plan.owner:
            yield stream.mix.gate, stream.generated_by, None, plan.at(f"streams.{name}.mix.gate")


def dated(plan: Plan, registry: Registry) -> set[str]:
    """The agents with a gate that is told when they were last measured."""
    needs = ((agent, registry.find("gates", gate.name).needs) for gate, agent, *_ in gates(plan))
    return {agent for agent, theirs in needs if not {*MEASURED}.isdisjoint(theirs)}


def check(plan: Plan, registry: Registry) -> None:
    """Refuse gates, objectives and rules that need what is not there."""
    for gate, agent, edge, where in gates(plan):
        offer: GateOffer = registry.find("gates", gate.name, where)
        if plan.task.labels not in offer.answers:
            what = f"gate {gate.name!r} judges answers about {' or '.join(offer.answers)}, and those of task "
            raise MeshError(f"{what}{plan.task.name} are {plan.task.labels}", where=where, instead="another gate")
        if plan.task.outputs == "vocabulary" and (lacking := [n for n in offer.needs if n in (*OF_BATCHES,)]):
            what = f"gate {gate.name!r} needs {lacking[0]}, and a gate of language models is given no rows of a batch"
            raise MeshError(what, where=where, instead="a gate by step, epoch, round, metrics or agreement")
        _rows(plan, gate, offer, agent, edge, where)
        _times(plan, f"gate {gate.name!r}", offer.needs, agent, where)
    for edge in plan.edges:
        if edge.objective is not None and "round" in edge.needs and edge.target in plan.owner:
            _times(plan, f"objective {edge.objective.name!r}", ("round",), edge.target, f"{edge.where}.objective")
    for name, node in plan.consensus.items():
        for agent in reach.readers(name, plan.consensus) if "round" in node.needs else ():
            _times(plan, f"rule {node.rule.name!r}", ("round",), agent, plan.at(f"consensus.{name}.rule"))


def _rows(plan: Plan, gate: GateRef, offer: GateOffer, agent: str, edge: Edge | None, where: str) -> None:
    """Refuse a gate that needs of a batch what it has not."""
    own = edge or next((one for one in plan.edges if one.target == agent and one.as_ == "target"), None)
    if own is None:
        return
    if edge is not None and (node := plan.consensus.get(edge.source)) and node.space in ("loss", "gradient"):
        what = f"{edge} carries a signal of each source, by coefficients that its consensus computes"
        raise MeshError(what, where=where, instead=f"agents.{agent}.gate, or another space of {edge.source}")
    if "labels" in offer.needs:
        if not labelled(plan.spec, own.stream):
            what = f"gate {gate.name!r} needs labels, and stream {own.stream!r} has none"
            raise MeshError(what, where=where, instead="a gate without labels, or a labelled stream")
        if plan.spec.agents[agent].labels is not None:
            what = f"gate {gate.name!r} needs labels of all classes, and {agent} knows only some"
            raise MeshError(what, where=where, instead="a gate without labels")
    sure = plan.task.labels == "classes" and edge is not None and edge.form in ("logits", PROBABILITIES[0])
    if edge is not None and "confidence" in offer.needs and not sure:
        what = f"gate {gate.name!r} reads how confident the source is, and {edge} carries {edge.form}"
        what += "" if plan.task.labels == "classes" else f" of {plan.task.labels}"
        instead = "a gate on a flow of logits or probabilities, from a teacher or a consensus"
        raise MeshError(what, where=where, instead=instead)
    if edge is not None and (lone := [need for need in ("losses", "counted") if need in offer.needs]):
        if "spans" in edge.needs:
            what = f"{edge} compares spans, and not row by row, so there is no loss of each row"
            raise MeshError(what, where=where, instead=f"a gate without {lone[0]}")
        if gate.of and "losses" in offer.needs and edge.reads != "logits":
            what = f"{edge} compares layers, and of {gate.of} the gate has logits"
            raise MeshError(what, where=f"{where}.{gate.name}.of", instead=OUT)
    if gate.of and divided(plan.spec, own.stream):
        what = f"stream {own.stream!r} is divided, so {gate.of} does not see the samples of {agent}"
        raise MeshError(what, where=f"{where}.{gate.name}.of", instead=f"{OUT}, or a stream that both see")


def _times(plan: Plan, who: str, needs: tuple[str, ...], agent: str, where: str) -> None:
    """Refuse a need of rounds, or of what is measured, where there are none."""
    stage = plan.stage_of(agent)
    rounds = stage is not None and any(isinstance(line, Repeat) for line in stage.program.body)
    for name in ("round", "agreement"):
        if name in needs and not rounds:
            instead = "program: [{of: [...], repeat: N, do: [...]}], or " + (
                "`epoch`" if name == "round" else "another gate"
            )
            raise MeshError(f"{who} needs `{name}`, and {agent} trains in no rounds", where=where, instead=instead)
    if "round" in needs and stage is not None and not all(isinstance(line, Repeat) for line in stage.program.body):
        what = f"{who} needs `round`, and some lessons of {agent} are in none"
        raise MeshError(what, where=where, instead="all lines of the program inside `do`")
    if "agreement" in needs and stage is not None and not publications(stage.program.body):
        what = f"{who} needs `agreement`, and the rounds of {agent} publish nothing"
        raise MeshError(what, where=where, instead="a line {publish: [...]} in `do`, to a consensus")
    if "agreement" in needs and stage is not None:
        lines = publications(stage.program.body)
        heard = {name for line in lines for name in measured(plan, line.agents, line.to)}
        if not any(agent in reach.parties(name, plan.consensus) for name in heard):
            what = f"{who} needs `agreement`, and in its rounds nothing is published to a consensus that {agent} "
            instead = f"a flow from {agent} to a consensus, or from one to it"
            raise MeshError(f"{what}sends to or reads", where=where, instead=instead)
    if "agreement" in needs and not plan.task.decides:
        what = f"answers of task {plan.task.name} are {plan.task.labels}, of which agreement is not defined"
        raise MeshError(what, where=where, instead="another gate")
    if OF_VALIDATION & {*needs} and plan.owner[agent] not in plan.trainable:
        what = f"{who} reads metrics of {agent}, which does not train, so that they stay as they are"
        raise MeshError(what, where=where, instead="another gate")
    if OF_VALIDATION & {*needs} and not rounds and not plan.train(agent).evaluates:
        what = f"{who} reads metrics of {agent}, which is not measured while it trains"
        raise MeshError(what, where=where, instead=f"agents.{agent}.train.evaluate_every: 1")
