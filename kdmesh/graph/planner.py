"""Make a plan of a mesh: draw it, check it, put it in order."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kdmesh.graph import (
    budgets,
    check,
    disclosed,
    gates,
    hosts,
    inputs,
    merging,
    participation,
    parties,
    private,
    private_training,
    renewal,
    stages,
    steps,
    unaligned,
    views,
)
from kdmesh.graph.draw import draw
from kdmesh.graph.edges import Edge, resolve
from kdmesh.graph.language_models import language_models, writing_task
from kdmesh.graph.nodes import consensus_nodes
from kdmesh.graph.plan import Plan, Stage
from kdmesh.graph.program import Program, programs
from kdmesh.graph.reach import readers
from kdmesh.graph.task import metrics_of, task_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec


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
    edges, weights = resolve(long, registry, origins), merging.resolve(long, registry, origins)
    edges += gates.informants(long, edges, registry)
    check.agents(long, registry)
    check.streams(long, edges, registry)
    unaligned.settle(long, edges, registry)
    consensus = consensus_nodes(long, edges, registry, origins, weights.pools)
    trained = {name for name, node in consensus.items() if node.trained}
    sets = stages.weight_sets(long, trained)
    check.followed(long, sets)
    merging.check(long, weights, sets)
    links: list[stages.Link] = [*edges, *weights.flows]
    structure = stages.structure(long, links, sets)
    renewal.note(edges, consensus)
    mixed = views.mixing(long, registry)
    stages.default_refresh(long, edges, sets, structure, renewal.wished(consensus), views.fresh(long, mixed))
    renewal.check(edges, consensus)
    unaligned.check(long, edges)
    merging.settle(long, weights, sets, structure)
    check.errors(long, consensus, registry)
    check.gradients(long, edges, sets, consensus)
    stage_of = stages.bind(long, links, sets, trained)
    stateful = [readers(name, consensus) for name, node in consensus.items() if node.stateful]
    generation, waits = stages.generations(long, links, sets, stage_of, stateful)
    check.taught(long, edges, sets)
    inputs.check(long, edges, sets.owner)
    check.label_spaces(long, edges, consensus)
    homes = parties.settle(long, edges, consensus, weights) if long.parties else None
    long, placed = hosts.place(long, edges, sets.owner, consensus, registry, homes)
    task, metrics = task_of(long, registry), metrics_of(long, registry)
    drawn = {part: where for part, where in origins.items() if not part.startswith("flows.")}  # edges know theirs
    write, writing = language_models(long, task, registry), writing_task(registry)
    plan = Plan(
        long,
        edges,
        sets.owner,
        consensus,
        [],
        placed,
        sets.trainable,
        task,
        metrics,
        weights,
        drawn,
        write,
        writing,
        mixed,
    )
    private.check_private(long, edges, plan.host_of, consensus, registry)
    disclosed.check_weights(plan)
    _stages(plan, sets, stage_of, generation, waits)
    private_training.check(plan)
    budgets.check(plan)
    check.batch_sizes(plan)
    gates.check(plan, registry)
    participation.check(plan)
    return plan


def _stages(
    plan: Plan,
    sets: stages.WeightSets,
    stage_of: dict[str, str],
    generation: dict[str, int],
    waits: dict[str, set[str]],
) -> None:
    """Assemble the stages with their programs and steps."""
    agent_stage = {agent: stage_of[weight_set] for agent, weight_set in sets.owner.items() if weight_set in stage_of}
    written = programs(plan.spec, agent_stage, plan.at)
    weights: dict[str, list[str]] = {name: [] for name in generation}
    for weight_set, name in stage_of.items():
        weights[name].append(weight_set)
    edges_of: dict[str, list[Edge]] = {name: [] for name in generation}
    for edge in plan.edges:
        stage_name = stage_of.get(sets.of(edge.target))
        if stage_name is not None and edge.target in plan.spec.agents:
            edges_of[stage_name].append(edge)
    rank = {name: number for number, name in enumerate([*plan.spec.agents, *plan.consensus])}
    seen = inputs.of_agents(plan.spec, plan.edges)
    for name in sorted(generation, key=lambda stage: (generation[stage], rank[stage])):
        weight_sets = sorted(weights[name])
        agents = sorted(
            (a for weight_set in weight_sets for a in sets.agents.get(weight_set, ())), key=rank.__getitem__
        )
        learn = [each for each in weight_sets if each not in sets.owner or plan.spec.agents[each].update != "merged"]
        usual = Program() if learn else Program([])
        stage = Stage(name, weight_sets, agents, generation[name], waits[name], written.get(name, usual))
        for line in stage.program.trains():
            only = set(learn) if line.agents is None else {sets.owner[agent] for agent in line.agents}
            active = [
                edge
                for edge in edges_of[name]
                if (edge.lesson is None or edge.lesson == line.phase) and sets.owner[edge.target] in only
            ]
            train = only | {each for each in weight_sets if each not in sets.owner or plan.spec.agents[each].ema}
            stage.phases[line.key] = steps.build_phase(
                line.phase, plan.spec, active, sets, plan.consensus, train, rank, seen
            )
        check.phases(stage, edges_of[name])
        plan.stages.append(stage)
