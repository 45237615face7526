"""Views that mix the samples of a batch: of which samples a row is, where it meets others, and what cannot be.

What arrives at an agent whose batches are mixed is of the same mixes, where who says it sees them too in that step; or
it is of samples: labels, what was published, and what agents say that see samples unmixed. Of samples the loss is that
of both that a row is made of, by their shares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.gates import OF_BATCHES
from kdmesh.graph.reach import behind
from kdmesh.graph.views import OUT

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import GateRef


def mixed_source(plan: Plan, edge: Edge) -> bool:
    """Whether what leaves an agent over an edge is of mixes: in steps, of one whose view mixes."""
    return edge.source in plan.mixed and (edge.live or edge.stale == "snapshot")


def about_samples(plan: Plan, edge: Edge) -> bool:
    """Whether a flow's rows are of single samples, and not of mixes."""
    return not any(mixed_source(plan, end) for end, _ in behind(edge, plan.consensus))


def refuse_mixing(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for the first mix that nothing sees, or whose rows would be taken for those of others."""
    for name, agent in plan.spec.agents.items():
        if agent.view.apart and name not in plan.mixed:
            what = f"{name} mixes no batches, so that `apart` has no effect"
            raise MeshError(what, where=plan.at(f"agents.{name}.view.apart"), instead=f"{OUT}, or augment: [mixup]")
    for name in plan.mixed:
        _agent(plan, registry, name)
    for edge in plan.edges if plan.mixed else ():
        if edge.target in plan.spec.agents and edge.as_ == "target" and not edge.unaligned:
            _flow(plan, registry, edge)


def _agent(plan: Plan, registry: Registry, name: str) -> None:
    ref, agent, where = plan.mixed[name], plan.spec.agents[name], plan.at(f"agents.{name}.view.augment")
    if plan.task.labels == "relevance":
        what = f"{ref.name} mixes samples, and those of task {plan.task.name} are lists"
        raise MeshError(what, where=where, instead=OUT)
    for edge in plan.edges:
        if edge.source == name and edge.stale == "recorded":
            what = f"what {name} says in steps is of mixes, and what is recorded is read by sample"
            raise MeshError(what, where=f"{edge.where}.stale", instead="stale: publish, which is of samples")
    learns = plan.spec.agents[plan.owner[name]].update == "grad"
    learns = learns and any(edge.target == name and edge.as_ == "target" for edge in plan.edges)
    if not learns and not any(mixed_source(plan, edge) for edge in plan.edges if edge.source == name):
        what = f"{ref.name} mixes the batches of steps, in which {name} neither learns nor answers"
        raise MeshError(what, where=where, instead=f"refresh: step on a flow from {name}, or {OUT}")
    _ask_nothing(registry, agent.gate, f"agents.{name}.gate", name)


def _ask_nothing(registry: Registry, gate: GateRef | None, where: str, name: str) -> None:
    """A gate may not look at a batch of mixes."""
    asks = [] if gate is None else [need for need in registry.find("gates", gate.name).needs if need in OF_BATCHES]
    if gate is not None and asks:
        what = f"gate {gate.name!r} looks at samples ({', '.join(asks)}), and {name} sees mixes of them"
        raise MeshError(what, where=where, instead=f"a gate by time or figures, or {name} without mixes")


def _flow(plan: Plan, registry: Registry, edge: Edge) -> None:
    """What reaches an agent, and whether its rows are those of the agent's own batch."""
    ends = [end for end, _ in behind(edge, plan.consensus)]
    mixed = [end for end in ends if mixed_source(plan, end)]
    reader = edge.target
    for end in mixed:
        if not _alike(plan, end.source, reader):
            says = f"of other mixes than {reader} sees" if reader in plan.mixed else f"of mixes, and {reader} sees none"
            what = f"what {end.source} answers is {says}"
            instead = f"view: {{of: {end.source}}} at {reader}, or apart: true in the view of {end.source}"
            raise MeshError(what, where=end.where, instead=instead)
    if mixed and len(mixed) < len(ends):
        rest = next(end.source for end in ends if end not in mixed)
        what = f"{mixed[0].source} answers mixes and {rest} samples, which are no rows to combine"
        raise MeshError(what, where=mixed[0].where, instead="the same view for both")
    nodes = [plan.consensus[name] for name in {end.target for end in ends} if name in plan.consensus]
    for node in nodes if mixed else ():
        if node.needs_labels or node.column or "ids" in node.needs:
            what = f"rule {node.rule.name!r} is told of samples, and {mixed[0].source} answers mixes of them"
            raise MeshError(what, where=plan.at(f"consensus.{node.name}.rule"), instead="another rule, or no mixes")
    if reader in plan.mixed:
        _learns(plan, edge, bool(mixed))


def _alike(plan: Plan, source: str, reader: str) -> bool:
    """Whether both see the same mixes, or one of them says that its own are its own."""
    views = [plan.spec.agents[name].view for name in (source, reader)]
    if any(view.apart for view in views):
        return True
    return plan.mixed.get(reader) == plan.mixed[source]


def _learns(plan: Plan, edge: Edge, mixed: bool) -> None:
    """A flow into an agent whose batches are mixed."""
    space = plan.consensus[edge.source].space if edge.source in plan.consensus else ""
    what, where, instead = "", edge.where, "another, or no mixes"
    if "ids" in edge.needs:
        what, where = "its objective remembers samples", f"{edge.where}.objective"
    elif edge.group:
        what, where, instead = "its denominator counts samples", f"{edge.where}.denominator", OUT
    elif edge.gate is not None:
        what, where, instead = "its gate says which samples count", f"{edge.where}.gate", OUT
    elif space in ("loss", "gradient"):
        what, instead = f"{edge.source} weighs the losses of its sources itself", "space: probs or logits"
    elif edge.asked and not mixed:
        what, instead = f"{edge.target} asks {edge.source} about rows", f"view: {{of: {edge.target}}}"
    if what:
        raise MeshError(f"{edge.target} sees mixes of samples, and on {edge} {what}", where=where, instead=instead)
