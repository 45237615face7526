"""Signals whose rows are of no samples: statistics of a whole stream, which their sources need not share.

A signal is one where its offer says so (`aligned=False`). Objectives read such alone, or such never, by their offers; a
consensus combines either such or answers to samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.edges import LABELS
from kdmesh.graph.nodes import labelled
from kdmesh.graph.task import task_of

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.offers import ObjectiveOffer, SignalOffer
    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec

ROWS = ("signal", "confidence", "losses", "counted")
"""What a gate may need of each row that a flow compares."""


def settle(spec: MeshSpec, edges: list[Edge], registry: Registry) -> None:
    """Note what each consensus carries on, and refuse what would take rows of no samples for such of samples."""
    for edge in edges:
        if edge.unaligned:
            _source(spec, edge, registry)
    carried: dict[str, Edge] = {}
    for name in spec.consensus:
        inputs = [edge for edge in edges if edge.target == name]
        whole = [edge for edge in inputs if edge.unaligned]
        if not whole:
            continue
        _node(spec, name, inputs, registry)
        carried[name] = whole[0]
    for edge in edges:
        if edge.source in carried:
            if edge.target in spec.consensus:
                what = f"{edge.source} combines statistics of streams, which no other consensus combines again"
                raise MeshError(what, where=edge.where, instead="the flows into it, to the other one too")
            edge.unaligned, edge.form = True, carried[edge.source].form
    for edge in edges:
        if edge.objective is not None and edge.target in spec.agents:
            _read(edge, registry)


def _source(spec: MeshSpec, edge: Edge, registry: Registry) -> None:
    """An agent that sends a statistic of a stream."""
    assert edge.derived is not None
    offer: SignalOffer = registry.find("signals", edge.derived.name)
    if edge.as_ != "target":
        what = f"{offer.name} has rows of no samples, and what informs a rule has one for each"
        raise MeshError(what, where=f"{edge.where}.as", instead="as: target")
    if "labels" in offer.needs and not labelled(spec, edge.stream):
        what = f"{offer.name} needs labels, and stream {edge.stream!r} has none"
        raise MeshError(what, where=f"{edge.where}.stream", instead="a labelled stream")
    task = task_of(spec, registry)
    if task.rows != "samples":
        what = f"{offer.name} is a statistic of samples, and answers of task {task.name} are of {task.rows}"
        raise MeshError(what, where=f"{edge.where}.signal", instead="leave it out")


def _node(spec: MeshSpec, name: str, inputs: list[Edge], registry: Registry) -> None:
    """A consensus of statistics: all its sources send such, of one form, and its rule asks for nothing of samples."""
    where, node = f"consensus.{name}", spec.consensus[name]
    for edge in inputs:
        if not edge.unaligned:
            what = f"{name} combines statistics of streams, and {edge} carries answers to samples"
            raise MeshError(what, where=edge.where, instead=f"signal: {_signal(inputs)}, or another consensus")
        if edge.form != inputs[0].form:
            what = f"{edge} carries {edge.form}, and {inputs[0]} {inputs[0].form}"
            raise MeshError(what, where=f"{edge.where}.signal", instead="one kind of signal into a consensus")
    offer = registry.find("consensus", node.rule.name, f"{where}.rule")
    asks = {"labels": offer.needs_labels, "ids": "ids" in offer.needs, "inputs": offer.inputs}
    asks |= {"a column": bool(offer.needs_column), "errors": offer.needs_errors}
    asks |= {"to learn from batches": offer.trained or node.trained}
    if asked := [what for what, wanted in asks.items() if wanted]:
        what = f"rule {offer.name!r} needs {asked[0]}, and {name} combines statistics of streams, not of samples"
        raise MeshError(what, where=f"{where}.rule", instead="a rule that needs nothing of samples (mean, median ...)")
    if "logits" not in offer.spaces or node.space not in (None, "logits"):
        place = f"{where}.space" if "logits" in offer.spaces else f"{where}.rule"
        what = f"statistics of streams are combined as they are, in space logits, and not in {node.space or 'probs'}"
        raise MeshError(what, where=place, instead="space: logits, or a rule that works in it")


def _signal(inputs: list[Edge]) -> str:
    return next(edge.derived.name for edge in inputs if edge.unaligned and edge.derived is not None)


def _read(edge: Edge, registry: Registry) -> None:
    """A flow into an agent, whose objective reads what it carries."""
    assert edge.objective is not None
    offer: ObjectiveOffer = registry.find("objectives", edge.objective.name)
    if edge.unaligned and offer.aligned:
        what = f"objective {offer.name!r} compares sample by sample, and {edge} carries a statistic of a stream"
        raise MeshError(what, where=f"{edge.where}.objective", instead="an objective whose offer says aligned=False")
    if not edge.unaligned and not offer.aligned:
        what = "labels" if edge.source == LABELS else "answers to samples"
        what = f"objective {offer.name!r} reads statistics of a stream, and {edge} carries {what}"
        raise MeshError(what, where=f"{edge.where}.objective", instead="a signal whose offer says aligned=False")
    if edge.unaligned and edge.form not in offer.forms:
        what = f"objective {offer.name!r} does not read {edge.form}, which {edge} carries"
        raise MeshError(what, where=f"{edge.where}.objective", instead=f"what it reads: {', '.join(offer.forms)}")
    if edge.unaligned and edge.gate is not None:
        gate = registry.find("gates", edge.gate.name, f"{edge.where}.gate")
        if gate.rows or not {*gate.needs}.isdisjoint(ROWS):
            what = f"gate {gate.name!r} looks at each row that is compared, and {edge} carries rows of no samples"
            raise MeshError(what, where=f"{edge.where}.gate", instead="a gate by step, epoch, round or metrics")


def check(spec: MeshSpec, edges: list[Edge]) -> None:
    """A statistic of a stream is made as its source publishes."""
    for edge in edges:
        if edge.unaligned and edge.source in spec.agents and edge.stale != "publish":
            raise MeshError(
                f"{edge} carries a statistic of a whole stream, which is made where {edge.source} publishes",
                where=f"{edge.where}.{'stale' if edge.stale else 'refresh'}",
                instead="refresh: epoch, round, once or `10 steps`, without `stale`",
            )
