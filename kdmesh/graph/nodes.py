"""Consensus nodes, resolved: space and temperature from their readers, what feeds them, whether they train."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.task import task_of
from kdmesh.offers import NOW, PROBABILITIES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec, RuleRef


@dataclass(slots=True)
class ConsensusNode:
    """A consensus as the engine runs it. ``inputs`` and ``readers`` are edges, in declared order.

    ``partial``: its members may know different classes. ``labels``: the classes that its own columns stand for, None
    for all; each member's edge says in ``classes`` which of them it knows. ``column``: of the data, for its rule.
    ``needs_errors``: its rule is given the members' errors on validation. ``needs``: what else of the batch.
    ``abstains``: its rule may leave samples without an answer. ``releases``: the mechanism by which it answers where it
    does so with noise, on its party's account. ``renewed``: by agent that reads it, also through
    another one, how often it is made anew for that agent, where a flow says so; see `renewal.py`.
    """

    name: str
    rule: RuleRef
    factory: str
    space: str
    temperature: float
    include_self: bool
    trained: bool
    stateful: bool
    per_target: bool
    needs_labels: bool
    stream: str
    partial: bool = False
    labels: tuple[int, ...] | None = None
    column: str = ""
    needs_errors: bool = False
    needs: tuple[str, ...] = ()
    abstains: bool = False
    releases: str = ""
    unaligned: bool = False  # it combines statistics of streams, as they are
    renewed: dict[str, str] = field(default_factory=dict)
    home: str = ""  # where parties are: the host that forms it for readers elsewhere; "": where it is read
    inputs: list[Edge] = field(default_factory=list)
    readers: list[Edge] = field(default_factory=list)

    @property
    def members(self) -> list[Edge]:
        """The edges whose signals are combined (an `input` edge only informs the rule)."""
        return [edge for edge in self.inputs if edge.as_ == "target"]

    @property
    def given(self) -> list[Edge]:
        """The edges whose signals inform the rule."""
        return [edge for edge in self.inputs if edge.as_ == "input"]

    @property
    def owned(self) -> bool:
        """Whether one host must own it; a pure rule runs beside each reader, where it has no ``home``."""
        return self.trained or self.stateful

    @property
    def timely(self) -> bool:
        """Whether what its rule says depends on how far its reader's training is."""
        return not {*self.needs}.isdisjoint(NOW)

    @property
    def stepwise(self) -> bool:
        """Whether it is made anew of each batch, also of what is stored."""
        return "step" in self.renewed.values()

    @property
    def eager(self) -> bool:
        """Whether its rule is called once for each row, as the batch is combined: it counts, or some go without."""
        return self.stateful or self.abstains


def labelled(spec: MeshSpec, stream: str) -> bool:
    """Whether a stream's samples carry labels that may be read."""
    if stream == "transfer":
        return False
    own = spec.streams.get(stream)
    if own is None or own.label is not None:
        return own is None or own.labels
    return own.labels and labelled(spec, own.prompts or own.of)


def consensus_nodes(
    spec: MeshSpec, edges: list[Edge], registry: Registry, origins: Mapping[str, str], pools: Collection[str] = ()
) -> dict[str, ConsensusNode]:
    """Resolve every consensus node and set the form of the edges that leave it. ``origins``: where drawn ones stand.

    ``pools``: those that combine weights, which are none of these.
    """
    found: dict[str, ConsensusNode] = {}
    for name, node in spec.consensus.items():
        if name in pools:
            continue
        where = f"consensus.{name}"
        offer = registry.find("consensus", node.rule.name, f"{where}.rule")
        config = registry.check("consensus", node.rule.name, node.rule.config, f"{where}.rule")
        found[name] = ConsensusNode(
            name=name,
            rule=node.rule,
            factory=offer.factory,
            space=node.space or "",
            temperature=node.temperature or 0.0,
            include_self=node.include_self,
            trained=node.trained or offer.trained,
            stateful=offer.stateful,
            per_target=node.per_target,
            needs_labels=offer.needs_labels,
            stream="train",
            partial=offer.partial,
            column=getattr(config, offer.needs_column) if offer.needs_column else "",
            needs_errors=offer.needs_errors,
            needs=offer.needs,
            abstains=offer.abstains,
            releases=offer.releases,
        )
    for edge in edges:
        if edge.target in found:
            found[edge.target].inputs.append(edge)
            found[edge.target].stream = edge.stream
        if edge.source in found:
            found[edge.source].readers.append(edge)
    settled: set[str] = set()

    def settle(node: ConsensusNode) -> None:
        if node.name not in settled:  # a circle of them is found later, with its path
            settled.add(node.name)
            outer = [found[edge.target] for edge in node.readers if edge.target in found]
            for other in outer:
                settle(other)
            where = f"consensus.{node.name}"
            _settle(node, outer, spec, registry, origins.get(where, where))

    for resolved in found.values():
        settle(resolved)
    return found


def _settle(node: ConsensusNode, outer: list[ConsensusNode], spec: MeshSpec, registry: Registry, where: str) -> None:
    """Choose space and temperature where they were left open, and refuse what cannot be.

    ``outer``: the consensus nodes that read this one, which want it in their own space and at their temperature.
    """
    offer = registry.find("consensus", node.rule.name)
    if not node.members:
        raise MeshError(
            "nothing flows into this consensus", where=where, instead=f"add {{from: [...], to: {node.name}}}"
        )
    _named(node, registry, where)
    if any(edge.unaligned for edge in node.members):  # all of them, and all is checked
        node.unaligned, node.space, node.temperature = True, "logits", node.temperature or 1.0
        return
    readers = [edge for edge in node.readers if edge.objective is not None]
    offers = [registry.find("objectives", edge.objective.name) for edge in readers if edge.objective]
    task = task_of(spec, registry)
    if task.labels not in offer.answers:
        raise MeshError(
            f"rule {node.rule.name!r} combines answers about {' or '.join(offer.answers)}, and those of task "
            f"{task.name} are {task.labels}",
            where=f"{where}.rule",
            instead=f"one of: {', '.join(o.name for o in registry.offers('consensus') if task.labels in o.answers)}",
        )
    spaces = [space for space in offer.spaces if space in task.spaces]
    if not node.space:
        best = next((space for space in PROBABILITIES if space in task.spaces), "logits")
        plain = not all(best in reader.forms for reader in offers) or any(other.space != best for other in outer)
        wanted = "logits" if plain else best
        node.space = next((space for space in (wanted, *spaces) if space in spaces), "")
    if node.space not in spaces:
        raise MeshError(
            f"rule {node.rule.name!r} does not work in space {node.space!r}",
            where=f"{where}.space",
            instead=f"one of: {', '.join(spaces)}",
        )
    if bool(node.given) != offer.inputs:
        raise MeshError(
            f"rule {node.rule.name!r} is informed by flows `as: input`, and there is none"
            if offer.inputs
            else f"rule {node.rule.name!r} takes no flow `as: input`",
            where=where if offer.inputs else node.given[0].where,
            instead=f"add {{from: [...], to: {node.name}, as: input, signal: hidden, tap: layers.0}}"
            if offer.inputs
            else "as: target, or another rule",
        )
    if node.needs_labels and not labelled(spec, node.stream):
        raise MeshError(
            f"rule {node.rule.name!r} needs labels, and stream {node.stream!r} has none",
            where=f"{where}.rule",
            instead="a rule without labels (mean, entropy, median ...), or form this consensus on a labelled stream",
        )
    if node.trained and readers and all(edge.detach for edge in readers):
        raise MeshError(
            "this rule has weights, and no gradient reaches them: every reader keeps `detach: true`",
            where=where,
            instead="detach: false on the flow from this consensus to an agent whose loss trains it",
        )
    for edge, reader in zip(readers, offers, strict=True):
        if reader.reads != "logits":
            raise MeshError(
                f"objective {reader.name!r} compares {reader.reads} signals, and a consensus combines outputs",
                where=edge.where,
                instead="a flow from one teacher, or an objective on outputs (kl, mse ...)",
            )
        edge.form = node.space if node.space in (*PROBABILITIES, "logits") else "logits"
        if edge.form not in reader.forms:
            raise MeshError(
                f"objective {reader.name!r} does not read {edge.form}, which consensus {node.name!r} gives",
                where=edge.where,
                instead=f"set `space: {reader.forms[0]}` on the consensus, or use an objective that reads {edge.form}",
            )
    for edge in node.readers:
        if edge.target in (other.name for other in outer):
            edge.form = node.space
    _temperature(node, outer, readers, offers, where)


def _named(node: ConsensusNode, registry: Registry, where: str) -> None:
    """Refuse a rule whose settings name a source that does not flow into its node."""
    config = registry.check("consensus", node.rule.name, node.rule.config)
    sources = [edge.source for edge in node.members]
    for setting, name in getattr(config, "named_sources", dict)().items():
        if name not in sources:
            raise MeshError(
                f"{name!r} does not flow into consensus {node.name!r}",
                where=f"{where}.rule.{node.rule.name}.{setting}",
                instead=nearest(name, sources, "its sources"),
            )


def _temperature(
    node: ConsensusNode, outer: list[ConsensusNode], readers: list[Edge], offers: list[Any], where: str
) -> None:
    """Probabilities are combined at the temperature of their readers; nothing is re-tempered, so they must agree."""
    wanted = {
        edge.objective.config.get("temperature", reader.config.model_fields["temperature"].default): edge
        for edge, reader in zip(readers, offers, strict=True)
        if edge.objective is not None and reader.tempered
    }
    wanted.update((other.temperature, node.readers[0]) for other in outer if other.space in PROBABILITIES)
    if node.space in PROBABILITIES and node.temperature:
        wanted.setdefault(node.temperature, readers[0] if readers else node.inputs[0])
    if node.space in PROBABILITIES and len(wanted) > 1:
        raise MeshError(
            f"readers of one consensus want different temperatures: {', '.join(str(t) for t in sorted(wanted))}",
            where=where,
            instead="give its readers and the consensus one temperature, or draw a consensus for each",
        )
    if not node.temperature:
        node.temperature = float(next(iter(wanted), 1.0))
