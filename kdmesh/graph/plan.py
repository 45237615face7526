"""The plan: everything that is known before a tensor exists. The engine reads this and nothing else."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import networkx as nx

from kdmesh.graph import check, hosts, private, stages, steps
from kdmesh.graph.draw import draw
from kdmesh.graph.edges import LABELS, PLAIN, Edge, resolve
from kdmesh.graph.nodes import ConsensusNode, consensus_nodes
from kdmesh.graph.program import Program, programs
from kdmesh.graph.task import metrics_of, task_of
from kdmesh.spec import FlowSpec, MeshSpec, MetricRef, SignalRef, TrainSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kdmesh.contracts.task import Task
    from kdmesh.graph.steps import Lesson
    from kdmesh.offers import TaskOffer
    from kdmesh.plugins import Registry


@dataclass
class Stage:
    """Weights that train together. ``weights`` includes trained consensus nodes; ``agents`` are the weights' views."""

    name: str
    weights: list[str]
    agents: list[str]
    generation: int
    waits: set[str]
    program: Program
    lessons: dict[str, Lesson] = field(default_factory=dict)  # by Train.key


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

    @cached_property
    def answers(self) -> Task:
        """What the answers of the mesh's models mean."""
        made: Task = self.task.make(self.spec.task.config)
        return made

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
        return replace(self, hosts={host: names for host, names in left.items() if names})

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """By private stream that is not divided: the agents that see its samples."""
        readers = {name: [edge.target for edge in node.readers] for name, node in self.consensus.items()}
        return private.users(self.spec, self.edges, readers)

    def train(self, agent: str) -> TrainSpec:
        """The training settings of an agent's weights."""
        return self.spec.agents[self.owner[agent]].train.over(self.spec.train)

    def stage(self, name: str) -> Stage:
        """A stage by its name."""
        return next(stage for stage in self.stages if stage.name == name)

    def judge(self, consensus: str) -> str:
        """The host that measures a consensus: its first reader's, else its first source's; "" if all were dropped."""
        node, host_of = self.consensus[consensus], self.host_of
        ends = [edge.target for edge in node.readers] + [edge.source for edge in node.inputs]
        return next((host_of[end] for end in ends if end in host_of), "")

    def stage_of(self, agent: str) -> Stage | None:
        """The stage in which an agent's weights train; None for frozen ones."""
        return next((stage for stage in self.stages if self.owner[agent] in stage.weights), None)

    def graph(self) -> nx.MultiDiGraph:
        """The mesh as networkx sees it: agents and consensus nodes, one edge per flow, the edge's id as key."""
        graph = nx.MultiDiGraph(name=self.spec.name)
        graph.add_nodes_from((name, {"kind": "agent", "weights": self.owner[name]}) for name in self.spec.agents)
        graph.add_nodes_from((name, {"kind": "consensus"}) for name in self.consensus)
        if any(edge.source == LABELS for edge in self.edges):
            graph.add_node(LABELS, kind=LABELS)
        graph.add_edges_from((edge.source, edge.target, edge.id, {"edge": edge}) for edge in self.edges)
        return graph

    def resolved(self) -> MeshSpec:
        """The long form with every default filled in: feeding it back gives the same plan and the same bits."""
        plain = {name: SignalRef(name=name) for name in PLAIN}
        flows = [
            FlowSpec(
                **{"from": edge.source, "to": edge.target, "as": edge.as_}, signal=edge.made or plain[edge.signal],
                tap=edge.tap, stream=edge.stream, objective=edge.objective, weight=edge.weight, refresh=edge.refresh,
                stale=edge.stale, sees=edge.sees, detach=edge.detach, mode=edge.mode, lesson=edge.lesson,
            )
            for edge in self.edges
        ]  # fmt: skip
        nodes = {
            name: node.model_copy(
                update={"space": self.consensus[name].space, "temperature": self.consensus[name].temperature}
            )
            for name, node in self.spec.consensus.items()
        }
        return self.spec.model_copy(update={"flows": flows, "consensus": nodes})


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the cyclic garbage collector: a plan of 100,000 edges is all kept, and scanning it again costs a third."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
def make_plan(spec: MeshSpec, registry: Registry) -> Plan:
    """Draw, check and order a mesh. Raises MeshError for whatever structure alone can tell is wrong."""
    origins: dict[str, str] = {}
    long = draw(spec, registry, origins)
    edges = resolve(long, registry, origins)
    check.agents(long, registry)
    check.streams(long, edges, registry)
    consensus = consensus_nodes(long, edges, registry, origins)
    trained = {name for name, node in consensus.items() if node.trained}
    found = stages.units(long, trained)
    check.followed(long, found)
    stages.default_refresh(long, edges, found, stages.structure(long, edges, found))
    check.gradients(long, edges, found, consensus)
    stage_of = stages.bind(long, edges, found, trained)
    generation, waits = stages.generations(long, edges, found, stage_of)
    check.taught(long, edges, found)
    check.label_spaces(long, edges, consensus)
    long, placed = hosts.place(long, edges, found.owner, consensus, registry)
    task, metrics = task_of(long, registry), metrics_of(long, registry)
    plan = Plan(long, edges, found.owner, consensus, [], placed, found.trainable, task, metrics)
    readers = {name: [edge.target for edge in node.readers] for name, node in consensus.items()}
    private.check_private(long, edges, plan.host_of, readers)
    _stages(plan, found, stage_of, generation, waits)
    check.batch_sizes(plan)
    return plan


def _stages(
    plan: Plan, found: stages.Units, stage_of: dict[str, str], generation: dict[str, int], waits: dict[str, set[str]]
) -> None:
    """Assemble the stages with their programs and steps."""
    agent_stage = {agent: stage_of[unit] for agent, unit in found.owner.items() if unit in stage_of}
    written = programs(plan.spec, agent_stage)
    weights: dict[str, list[str]] = {name: [] for name in generation}
    for unit, name in stage_of.items():
        weights[name].append(unit)
    edges_of: dict[str, list[Edge]] = {name: [] for name in generation}
    for edge in plan.edges:
        stage_name = stage_of.get(found.of(edge.target))
        if stage_name is not None and edge.target in plan.spec.agents:
            edges_of[stage_name].append(edge)
    rank = {name: number for number, name in enumerate([*plan.spec.agents, *plan.consensus])}
    for name in sorted(generation, key=lambda stage: (generation[stage], rank[stage])):
        units = sorted(weights[name])
        agents = sorted((a for unit in units for a in found.agents.get(unit, ())), key=rank.__getitem__)
        stage = Stage(name, units, agents, generation[name], waits[name], written.get(name, Program()))
        for line in stage.program.trains():
            only = set(units) if line.agents is None else {found.owner[agent] for agent in line.agents}
            active = [
                edge
                for edge in edges_of[name]
                if (edge.lesson is None or edge.lesson == line.lesson) and found.owner[edge.target] in only
            ]
            train = only | {unit for unit in units if unit not in found.owner or plan.spec.agents[unit].ema}
            stage.lessons[line.key] = steps.lesson(line.lesson, plan.spec, active, found, plan.consensus, train, rank)
        check.lessons(stage, edges_of[name])
        plan.stages.append(stage)
