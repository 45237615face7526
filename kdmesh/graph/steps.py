"""The step of a phase, unrolled into a DAG: forwards, combinations, updates.

`as: target` is forward to update, `input` forward to forward; `sees: after` forwards the source again after its
update. What a reader asks for is answered after the forwards of both. The topological order is the inline loop and the
order of submission to Ray.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import networkx as nx

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.stages import WeightSets
    from kdmesh.spec import MeshSpec


ANSWERS = {"f": "a", "f+": "a+"}
"""The op that answers what readers ask, by that which forwards their source."""


class Op(NamedTuple):
    """One node of the step: ``gen``, ``f`` (forward or combine), ``f+`` (forward again), ``u`` (update).

    ``a``, ``a+``: the answer, of what such a forward said, to what readers ask about their own.
    """

    kind: str
    node: str
    stream: str = ""
    mode: str = ""  # "" as trained, or `eval` / `train` where a flow asks for it

    def label(self, several: set[str]) -> str:
        """The op's short name; the stream is written where its node forwards on more than one."""
        text = f"{self.kind}.{self.node}"
        text += f"@{self.stream}" if self.node in several and self.stream else ""
        return text + (f"[{self.mode}]" if self.mode else "")


@dataclass
class Phase:
    """The flows that are active together, their streams (the first defines the epoch), and the step they make."""

    name: str
    edges: list[Edge]
    streams: list[str]
    ops: list[Op] = field(default_factory=list)
    levels: list[list[Op]] = field(default_factory=list)
    after: dict[Op, list[Op]] = field(default_factory=dict)

    def labels(self) -> list[list[str]]:
        """The step's levels as short names, sorted within a level."""
        streams: dict[str, set[str]] = {}
        for op in self.ops:
            if op.kind in ("f", "f+"):
                streams.setdefault(op.node, set()).add(op.stream)
        several = {node for node, names in streams.items() if len(names) > 1}
        return [sorted(op.label(several) for op in level) for level in self.levels]

    def text(self) -> str:
        """The step in one line: levels of ops, separated by bars."""
        return " | ".join(" ".join(level) for level in self.labels())


def build_phase(
    name: str,
    spec: MeshSpec,
    active: list[Edge],
    found: WeightSets,
    consensus: dict[str, ConsensusNode],
    train: set[str],
    rank: dict[str, int],
    inputs: Mapping[tuple[str, str], Edge],
) -> Phase:
    """Build the step of one phase.

    ``active``: the edges that end at agents in this phase; ``train``: the weight sets updated in it; ``rank``: the
    declared order of agents and consensus nodes; ``inputs``: what agents see in the place of samples, by stream: it is
    active wherever they are forwarded.
    """
    drawn = _Drawing(spec, found, consensus, train, inputs)
    for edge in active:
        drawn.edge(edge)
    drawn.updates(active)
    streams = list(dict.fromkeys(edge.stream for edge in active))
    phase = Phase(name, active + [edge for edge in drawn.given if edge not in active], streams)
    _order(drawn.dag(), phase, rank)
    return phase


class _Drawing:
    """The step's DAG while it grows: ops and arrows, each once, in the order in which they were first needed."""

    def __init__(
        self,
        spec: MeshSpec,
        found: WeightSets,
        consensus: dict[str, ConsensusNode],
        train: set[str],
        inputs: Mapping[tuple[str, str], Edge],
    ) -> None:
        self.spec, self.consensus, self.train, self.inputs = spec, consensus, train, inputs
        self.given: list[Edge] = []  # the inputs of all that is forwarded
        self.owner = found.owner
        self.ops: dict[Op, None] = {}
        self.arrows: dict[tuple[Op, Op], None] = {}
        self.combined: dict[str, Op | None] = {}
        self.seen: set[tuple[str, str, str]] = set()

    def dag(self) -> nx.DiGraph:
        """What was drawn, as a graph."""
        dag = nx.DiGraph()
        dag.add_nodes_from(self.ops)
        dag.add_edges_from(self.arrows)
        return dag

    def arrow(self, before: Op, after: Op) -> None:
        self.arrows[before, after] = None

    def forward(self, agent: str, stream: str, mode: str = "") -> Op:
        """Add the forward of an agent on a stream, after the samples are written where an agent writes them."""
        op = Op("f", agent, stream, mode)
        if op not in self.ops:
            self.ops[op] = None
            self.written(stream, op)
            given = self.inputs.get((agent, stream))
            if given is not None:
                self.given.append(given)
                if given.live:
                    self.arrow(self.publication(given), op)
        return op

    def written(self, stream: str, reader: Op) -> None:
        """Add that an agent writes a stream, if one does, before it is read, and after what it is written from."""
        spec = self.spec.streams.get(stream)
        if spec is None or not spec.generated_by:
            return
        op = Op("gen", spec.generated_by, stream)
        self.arrow(op, reader)
        for other in spec.made_of.values():
            self.written(other, op)

    def publication(self, edge: Edge) -> Op:
        """The op whose value a live edge carries: the source's forward, again after its update where asked.

        Of what its reader asks for it is the answer, which waits for the reader's forward, too.
        """
        op = self.said(edge)
        if not edge.asked:
            return op
        answer = op._replace(kind=ANSWERS[op.kind])
        self.arrow(op, answer)
        self.arrow(self.forward(edge.target, edge.stream), answer)
        return answer

    def said(self, edge: Edge) -> Op:
        """The forward of a live edge's source."""
        weight_set = self.owner[edge.source]
        usual = "train" if weight_set in self.train and self.spec.agents[edge.source].ema is None else "eval"
        op = self.forward(edge.source, edge.stream, "" if edge.mode in ("auto", usual) else edge.mode)
        if edge.sees == "before":
            return op
        again = op._replace(kind="f+")
        self.arrow(Op("u", weight_set), again)
        given = self.inputs.get((edge.source, edge.stream))
        if given is not None and given.live:
            self.arrow(self.publication(given), again)
        return again

    def edge(self, edge: Edge) -> None:
        """Add what one edge into an agent needs. An input is there wherever its agent is forwarded."""
        if edge.as_ == "input":
            return
        if edge.source not in self.consensus and not edge.live:  # only its target has work in the step
            key = edge.target, edge.stream, edge.as_
            if key in self.seen:
                return
            self.seen.add(key)
        weight_set = self.owner[edge.target]
        update = Op("u", weight_set)
        own = self.forward(edge.target, edge.stream)
        if edge.as_ == "target" and weight_set in self.train:
            self.arrow(own, update)
        goal = update
        if edge.source in self.consensus:
            combined = self.combine(edge.source)
            if combined is not None:
                self.arrow(combined, goal)
        elif edge.live and edge.source in self.owner:
            self.arrow(self.publication(edge), goal)

    def combine(self, name: str, path: tuple[str, ...] = ()) -> Op | None:
        """Add a consensus that has live inputs; one whose inputs are all stored is read from publications instead."""
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise MeshError(f"cycle within a step: {circle}", where="flows", instead="remove one of these flows")
        if name in self.combined:
            return self.combined[name]
        node = self.consensus[name]
        op = Op("f", name, node.stream)
        live = node.stepwise
        for edge in node.inputs:
            source: Op | None = None
            if edge.source in self.consensus:
                source = self.combine(edge.source, (*path, name))
            elif edge.live:
                source = self.publication(edge)
            live = live or source is not None or edge.stale in ("snapshot", "recorded")
            if source is not None:
                self.arrow(source, op)
        if live:
            self.ops[op] = None
            self.written(node.stream, op)  # old weights answer it, say, and no forward waits for it
        self.combined[name] = op if live or node.space in ("loss", "gradient") else None
        return self.combined[name]

    def updates(self, active: list[Edge]) -> None:
        """Followers update after who they follow; a trained consensus updates with its readers."""
        taught = {self.owner[edge.target] for edge in active if edge.as_ == "target"} & self.train
        leaders = {
            weight_set: self.owner[ema.of]
            for weight_set in self.train & self.owner.keys()
            if (ema := self.spec.agents[weight_set].ema)
        }
        for weight_set, leader in sorted(leaders.items()):
            first = leader
            while first in leaders:
                first = leaders[first]
            if first in taught:
                self.arrow(Op("u", leader), Op("u", weight_set))
        for edge in active:
            node = self.consensus.get(edge.source)
            if node is not None and node.trained and self.owner[edge.target] in taught:
                own = Op("u", node.name)
                self.arrow(Op("f", node.name, node.stream), own)
                self.arrow(Op("f", edge.target, edge.stream), own)


def _order(dag: nx.DiGraph, phase: Phase, rank: dict[str, int]) -> None:
    """Sort the step into levels, declared order within a level; a cycle is shown with its path."""
    try:
        phase.levels = [
            sorted(level, key=lambda op: (rank[op.node], op.kind, op.stream, op.mode))
            for level in nx.topological_generations(dag)
        ]
    except nx.NetworkXUnfeasible:
        names = [f"{a.kind}.{a.node}" for a, *_ in nx.find_cycle(dag)]
        raise MeshError(
            f"cycle within a step: {' -> '.join([*names, names[0]])}",
            where="flows",
            instead="give one of these flows `sees: before`, or a refresh longer than a step",
        ) from None
    phase.ops = [op for level in phase.levels for op in level]
    phase.after = {op: list(dag.predecessors(op)) for op in phase.ops}
