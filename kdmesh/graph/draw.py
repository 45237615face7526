"""From the short form to the long: parties replicate, strategies draw, labels reach whom nothing else teaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import FAULTS, MeshError, nearest
from kdmesh.graph import limits, views
from kdmesh.graph.agreed import filled
from kdmesh.graph.canvas import Canvas, expand
from kdmesh.graph.language_models import language_models, writing_task
from kdmesh.graph.task import label_objective, settled, task_of
from kdmesh.spec import AgentSpec, ConsensusSpec, FlowSpec, MeshSpec, Named, ObjectiveRef, ProgramItem
from kdmesh.spec.names import refuse

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kdmesh.plugins import Registry


def draw(spec: MeshSpec, registry: Registry, origins: dict[str, str] | None = None) -> MeshSpec:
    """Return the long form: no `connect`, no `count`, every flow written out. The long form itself is unchanged.

    ``origins`` is filled with where in the file each drawn part comes from: `flows.3` from `connect.0.ensemble`, and
    `program.0.patience`, a setting by which it may be found, from `connect.0.rounds.patience`.
    """
    origins = {} if origins is None else origins
    task_of(spec, registry)
    spec = settled(_replicate(spec), registry)
    canvas = Canvas(spec, label_objective(spec, registry))
    drawn: list[tuple[str, BaseModel, list[FlowSpec]]] = []
    for number, ref in enumerate(spec.connect):
        canvas.where = f"connect.{number}.{ref.name}"
        offer = registry.find("strategies", ref.name, f"connect.{number}")
        settings = registry.check("strategies", ref.name, ref.config, f"connect.{number}")
        _check_named(settings, registry, canvas.where)
        nodes, flows, lines = set(canvas.consensuses), len(canvas.flows), len(canvas.programs)
        agents, others = set(canvas.agents), set(canvas.streams)
        try:
            offer.make(ref.config).draw(canvas)
        except FAULTS as error:
            registry.attribute_error("strategies", ref.name, error, "as it drew", canvas.where)
        refuse([*canvas.agents, *canvas.consensuses], canvas.where)
        refuse(canvas.streams, canvas.where)
        _check_drawn(canvas, registry, nodes, flows)
        drawn.append((canvas.where, settings, canvas.flows[flows:]))
        origins.update((f"flows.{len(spec.flows) + at}", canvas.where) for at in range(flows, len(canvas.flows)))
        origins.update((f"consensus.{node}", f"{canvas.where}.consensus") for node in canvas.consensuses.keys() - nodes)
        made = [f"program.{at}" for at in range(lines, len(canvas.programs))]
        made += [f"streams.{name}" for name in canvas.streams.keys() - others]
        made += [f"agents.{name}" for name in canvas.agents.keys() - agents]
        origins.update(dict.fromkeys(made, canvas.where))
        for part in (*made, *(f"consensus.{node}" for node in canvas.consensuses.keys() - nodes)):
            origins.update((f"{part}.{field}", f"{canvas.where}.{field}") for field in type(settings).model_fields)
    origins.update(canvas.settings)
    if spec.data is not None:
        _check_streams(canvas, drawn)
    flows = len(canvas.flows)
    _implied_labels(canvas, short=bool(spec.connect) or not spec.flows, registry=registry)
    for at, flow in enumerate(canvas.flows[flows:], len(spec.flows) + flows):
        origins[f"flows.{at}"] = f"agents.{flow.to[0]}"
    if not spec.connect and not canvas.flows:
        return views.filled(filled(spec))
    return views.filled(filled(_long(spec, canvas)))


def _long(spec: MeshSpec, canvas: Canvas) -> MeshSpec:
    """The mesh as it was drawn."""
    return spec.model_copy(
        update={
            "connect": [],
            "agents": canvas.agents,
            "streams": canvas.streams,
            "consensus": canvas.consensuses,
            "flows": [*spec.flows, *canvas.flows],
            "program": canvas.programs,
        }
    )


def _check_named(settings: BaseModel, registry: Registry, where: str) -> None:
    """Check what a strategy's settings name, also where it would draw nothing of it."""
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        if isinstance(value, ConsensusSpec):
            registry.check("consensus", value.rule.name, value.rule.config, f"{where}.{field}")
        elif isinstance(value, Named) and value.kind:
            registry.check(value.kind, value.name, value.config, f"{where}.{field}")


def _check_drawn(canvas: Canvas, registry: Registry, nodes: set[str], flows: int) -> None:
    """Refuse what a strategy drew with wrong settings under the path of the strategy, which is what the user wrote."""
    for name, node in canvas.consensuses.items():
        if name not in nodes:
            registry.check("consensus", node.rule.name, node.rule.config, f"{canvas.where}.consensus")
    for objective in {repr(flow.objective): flow.objective for flow in canvas.flows[flows:] if flow.objective}.values():
        registry.check("objectives", objective.name, objective.config, f"{canvas.where}.objective")


def _check_streams(canvas: Canvas, drawn: list[tuple[str, BaseModel, list[FlowSpec]]]) -> None:
    """Refuse an unknown stream under the setting that names it, once all that strategies make are there."""
    known = {*canvas.spec.starts, *canvas.streams}
    for where, settings, flows in drawn:
        named = {value: field for field, value in reversed(list(settings)) if isinstance(value, str)}
        for name in dict.fromkeys(flow.stream for flow in flows):
            if name is not None and name not in known:
                place = f"{where}.{named.get(name, 'stream')}"
                raise MeshError(f"unknown stream {name!r}", where=place, instead=nearest(name, known, "streams"))


def _implied_labels(canvas: Canvas, short: bool, registry: Registry) -> None:
    """An agent that nothing teaches learns from labels: every one in the short form, a source of flows in the long."""
    own = canvas.spec.model_copy(update={"streams": canvas.streams})
    write = language_models(own, task_of(own, registry), registry)
    of_words = ObjectiveRef(name=writing_task(registry).objective)
    taught = canvas.taught()
    owners = {spec.weights_of or name for name, spec in canvas.agents.items() if name in taught}
    sources = {name for flow in canvas.spec.flows for name in flow.from_}
    for name, agent in canvas.agents.items():
        if agent.update != "grad" or agent.weights_of or name in owners or not (short or name in sources):
            continue
        objective = of_words if name in write else canvas.label_objective
        canvas.flows.append(FlowSpec(**{"from": "labels", "to": name}, objective=objective))


def _replicate(spec: MeshSpec) -> MeshSpec:
    """Replace an agent with `count` by that many agents, and `party[*]` by their names wherever agents are named."""
    count = 0
    for name, agent in spec.agents.items():
        count += agent.count or 1
        limits.nodes(count, f"agents.{name}.count" if agent.count else "agents")
    limits.nodes(len(spec.consensus), "consensus", "consensus nodes")
    if all(agent.count is None for agent in spec.agents.values()):
        return spec
    agents: dict[str, AgentSpec] = {}
    names: list[str] = []
    for name, agent in spec.agents.items():
        members = [name] if agent.count is None else [f"{name}[{i}]" for i in range(agent.count)]
        names += members
        agents.update(dict.fromkeys(members, agent.model_copy(update={"count": None})))
    refuse([*names, *spec.consensus], "agents")
    update: dict[str, Any] = {"agents": agents}
    update["flows"] = [
        flow.model_copy(update={"from_": expand(flow.from_, agents), "to": expand(flow.to, agents)})
        for flow in spec.flows
    ]
    update["program"] = [_expand_program(item, agents) for item in spec.program]
    update["streams"] = {
        name: stream.model_copy(
            update={"shards": stream.shards.model_copy(update={"of": expand(stream.shards.of, agents)})}
        )
        if stream.shards
        else stream
        for name, stream in spec.streams.items()
    }
    update["parties"] = {
        name: party.model_copy(update={"agents": expand(party.agents, agents)}) for name, party in spec.parties.items()
    }
    if isinstance(spec.placement, dict):
        update["placement"] = {
            host: expand(held, agents)
            if isinstance(held, list)
            else held.model_copy(update={"agents": expand(held.agents, agents)})
            for host, held in spec.placement.items()
        }
    return spec.model_copy(update=update)


def _expand_program(item: ProgramItem, agents: dict[str, AgentSpec]) -> ProgramItem:
    update: dict[str, Any] = {
        field: expand(getattr(item, field), agents)
        for field in ("of", "train", "publish")
        if getattr(item, field) is not None
    }
    if item.do is not None:
        update["do"] = [_expand_program(line, agents) for line in item.do]
    return item.model_copy(update=update)
