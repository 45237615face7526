"""A plan: everything that is known before a tensor exists. The engine reads this and nothing else."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import networkx as nx

from kdmesh.errors import MeshError
from kdmesh.graph import private
from kdmesh.graph.answering import Answering
from kdmesh.graph.edges import LABELS, PLAIN
from kdmesh.graph.inputs import of_agents, whose
from kdmesh.graph.merging import SAMPLES, Merging
from kdmesh.graph.program import Program
from kdmesh.graph.reach import readers, released
from kdmesh.offers import PROBABILITIES
from kdmesh.spec import FlowSpec, MeshSpec, MetricRef, SignalRef, TrainSpec, ViewRef
from kdmesh.spec.parties import COORDINATOR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kdmesh.contracts.task import Task
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.steps import Phase
    from kdmesh.offers import TaskOffer


@dataclass
class Stage:
    """Weights that train together. ``weights`` includes trained consensus nodes; ``agents`` are the weights' views."""

    name: str
    weights: list[str]
    agents: list[str]
    generation: int
    waits: set[str]
    program: Program
    phases: dict[str, Phase] = field(default_factory=dict)  # by Train.key


@dataclass
class Plan:
    """A mesh, understood. Stages are in the order in which they may start; ``hosts`` says who lives where."""

    spec: MeshSpec  # the long form
    edges: list[Edge]
    owner: dict[str, str]  # agent -> the agent that owns its weights
    consensus: dict[str, ConsensusNode]
    stages: list[Stage]
    hosts: dict[str, list[str]]
    trainable: set[str]
    task: TaskOffer
    metrics: list[MetricRef]
    merging: Merging = field(default_factory=Merging)
    origins: dict[str, str] = field(default_factory=dict)  # where the user wrote what strategies drew, by its path
    language_models: frozenset[str] = frozenset()  # agents that only write texts, of the task `writing`
    writing: TaskOffer | None = None
    mixed: dict[str, ViewRef] = field(default_factory=dict)  # by agent, the augmentation that mixes its batches

    def at(self, path: str) -> str:
        """Where in the file stands what the long form has at a path: what a strategy drew, at its setting."""
        parts = path.split(".")
        for size in range(len(parts), 1, -1):
            part = ".".join(parts[:size])
            if part in self.origins:
                found, whole = self.origins[part], self.origins.get(part.rpartition(".")[0])
                if whole is not None and found.startswith(f"{whole}."):  # a setting, in which the rest stands, too
                    return ".".join([found, *parts[size:]])
                return self.origins.get(f"{part}.{parts[-1]}", found)
        return path

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Errors that are raised within name what stands in the file, whoever finds them: see :meth:`at`."""
        try:
            yield
        except MeshError as error:
            error.where = self.at(error.where)
            raise

    @cached_property
    def answers(self) -> Task:
        """What the answers of the mesh's models mean."""
        return Answering(self.task, self.spec.task.config)

    def task_of(self, agent: str) -> TaskOffer:
        """What an agent answers: the mesh's task, unless it only writes texts."""
        return self.task if self.writing is None or agent not in self.language_models else self.writing

    @property
    def primary(self) -> str:
        """The metric by which agents are compared."""
        return self.spec.primary or self.task.primary

    @property
    def host_of(self) -> dict[str, str]:
        """The host of every agent."""
        return {agent: host for host, agents in self.hosts.items() for agent in agents}

    @property
    def dropped(self) -> frozenset[str]:
        """The agents that a run goes on without: no host has them."""
        return frozenset(self.spec.agents.keys() - self.host_of.keys())

    def without(self, agents: Collection[str]) -> Plan:
        """The same plan, with these agents on no host; what they sent is absent."""
        left = {host: [name for name in names if name not in agents] for host, names in self.hosts.items()}
        kept = {host: names for host, names in left.items() if names or not self.hosts[host]}
        return replace(self, hosts=kept)

    @cached_property
    def _inputs(self) -> dict[tuple[str, str], Edge]:
        return of_agents(self.spec, self.edges)

    @cached_property
    def inputs(self) -> dict[str, Edge]:
        """By agent that sees another's output in the place of samples: the last flow that says so."""
        return {name: edge for (name, _), edge in self._inputs.items()}

    def input_on(self, agent: str, stream: str) -> Edge | None:
        """What an agent sees on a stream in the place of samples; None where it sees these."""
        return self._inputs.get((agent, stream))

    def whose(self, agent: str, stream: str) -> str:
        """The agent whose samples an agent's answers on a stream are of: itself, unless it has an input there."""
        return whose(agent, stream, self._inputs)

    @cached_property
    def heirs(self) -> dict[str, dict[str, str]]:
        """By stream, the agents that see what others say of it, and by these the agent whose samples it is of."""
        found: dict[str, dict[str, str]] = {}
        for agent, stream in self._inputs:
            found.setdefault(stream, {})[agent] = self.whose(agent, stream)
        return found

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """By private stream that is not divided: the agents that see its samples."""
        return private.users(self.spec, self.edges, self.consensus)

    @cached_property
    def _settings(self) -> dict[str, TrainSpec]:
        """The training settings of all weights, by their owner."""
        return {name: self.spec.agents[name].train.over(self.spec.train) for name in dict.fromkeys(self.owner.values())}

    def train(self, agent: str) -> TrainSpec:
        """The training settings of an agent's weights."""
        return self._settings[self.owner[agent]]

    def forward_size(self, agent: str, samples: int) -> int:
        """How many samples each forward of an agent has that answers without training, in data of so many.

        It is the agent's `forward_size`, or the mesh's; by default as many as the mesh's batches have, so that a live
        answer takes one forward, and has the bits of a plain loop's.
        """
        return self.train(agent).forward_size or min(self.spec.train.batch_size, samples)

    def stage(self, name: str) -> Stage:
        """A stage by its name."""
        return next(stage for stage in self.stages if stage.name == name)

    def evaluator(self, consensus: str) -> str:
        """The host that measures a consensus: its own, else its first reader's, also through another consensus, else
        its first source's; "" if all were dropped.
        """
        node, host_of = self.consensus[consensus], self.host_of
        if node.home in self.hosts:
            return node.home
        ends = readers(consensus, self.consensus) + [edge.source for edge in node.inputs]
        return next((host_of[end] for end in ends if end in host_of), "")

    def home_of(self, source: str) -> str:
        """The host of an agent, or the one that forms a consensus; "" for one that is formed beside each reader."""
        node = self.consensus.get(source)
        return self.host_of.get(source, "") if node is None else node.home

    def pool_home(self, consensus: str) -> str:
        """The host that combines the weights of a consensus: the coordinator of parties, else its first reader's."""
        return COORDINATOR if COORDINATOR in self.hosts else self.host_of[self.merging.readers(consensus)[0]]

    def away(self, consensus: str, host: str) -> bool:
        """Whether a host is sent what a consensus says, which another one forms."""
        home = self.consensus[consensus].home
        return home in self.hosts and home != host

    @property
    def withholding(self) -> list[str]:
        """The parties that have a privacy budget: of what is made of their samples nothing else is told."""
        return [name for name, party in self.spec.parties.items() if party.privacy is not None]

    def withheld(self, name: str) -> bool:
        """Whether figures of an agent, or of a consensus, stay with its party, or nobody has any: it releases, or is
        made of what others release.
        """
        if name in self.consensus and released(name, self.consensus):
            return True
        where = self.evaluator(name) if name in self.consensus else self.host_of.get(name, "")
        return where in self.withholding and name not in self.private_agents

    @cached_property
    def private_agents(self) -> list[str]:
        """The agents that train privately: what is made of their weights may be told."""
        return [name for name in self.spec.agents if self.owner[name] == name and self.train(name).private is not None]

    def judged(self, agent: str) -> bool:
        """Whether some consensus of this agent's answers asks for its errors on validation."""
        return any(
            edge.source == agent for node in self.consensus.values() if node.needs_errors for edge in node.members
        )

    def stage_of(self, agent: str) -> Stage | None:
        """The stage in which an agent's weights train; None for frozen ones."""
        return next((stage for stage in self.stages if self.owner[agent] in stage.weights), None)

    def graph(self) -> nx.MultiDiGraph:
        """The mesh as networkx sees it: agents and consensus nodes, one edge per flow, the edge's id as key.

        An edge's attribute is ``edge``, or ``weights`` of a flow of weights.
        """
        graph = nx.MultiDiGraph(name=self.spec.name)
        graph.add_nodes_from((name, {"kind": "agent", "weights": self.owner[name]}) for name in self.spec.agents)
        graph.add_nodes_from((name, {"kind": "consensus"}) for name in (*self.consensus, *self.merging.pools))
        if any(edge.source == LABELS for edge in self.edges):
            graph.add_node(LABELS, kind=LABELS)
        graph.add_edges_from((edge.source, edge.target, edge.id, {"edge": edge}) for edge in self.edges)
        graph.add_edges_from(
            (flow.source, flow.target, f"weights {flow.id}", {"weights": flow}) for flow in self.merging.flows
        )
        return graph

    def resolved(self) -> MeshSpec:
        """The long form with every default filled in: feeding it back gives the same plan and the same bits."""
        plain = {name: SignalRef(name=name) for name in PLAIN}
        flows = [
            FlowSpec(
                **{"from": edge.source, "to": edge.target, "as": edge.as_}, signal=edge.derived or plain[edge.signal],
                tap=edge.tap, stream=edge.stream, objective=edge.objective, weight=edge.weight,
                refresh=edge.refresh or edge.renewed, stale=edge.stale, sees=edge.sees, detach=edge.detach,
                mode=edge.mode, lesson=edge.lesson, gate=edge.gate, part=edge.part or None,
                denominator={"group": edge.group} if edge.group else None, discloses=edge.discloses or None,
            )
            for edge in self.edges
            if edge.as_ != "gate"
        ]  # fmt: skip
        flows += [
            FlowSpec(
                **{"from": flow.source, "to": flow.target, "as": "weights"}, weight=flow.weight, refresh=flow.refresh,
                stream=flow.stream if flow.weight == SAMPLES else None, discloses=flow.discloses or None,
            )
            for flow in self.merging.flows
        ]  # fmt: skip
        nodes = {
            name: node.model_copy(
                update={"space": "weights"}
                if own is None
                else {"space": own.space, "temperature": own.temperature if own.space in PROBABILITIES else None}
            )
            for name, node in self.spec.consensus.items()
            for own in [self.consensus.get(name)]
        }
        return self.spec.model_copy(update={"flows": flows, "consensus": nodes})
