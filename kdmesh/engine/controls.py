"""Controls: each student again without its teachers, and from the best single teacher only.

The same initial weights, batch order and budget; only the flows differ. They are derived from the long form alone. Of
students that have private samples of one stream apart there are two more: the average of their weights in rounds, where
their models agree, and one student on the samples of all, a simulation that no party could run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kdmesh.errors import MeshError
from kdmesh.files import OURS, WEIGHTS
from kdmesh.graph.edges import LABELS
from kdmesh.graph.heard import origin
from kdmesh.graph.looked_up import lookup
from kdmesh.graph.private import divided, private_streams
from kdmesh.graph.program import Repeat
from kdmesh.graph.roles import teachers_of
from kdmesh.graph.served import is_served
from kdmesh.graph.sources import written_before
from kdmesh.graph.task import label_objective
from kdmesh.graph.unrun import LEARNING, unused
from kdmesh.hosts.modules import seed_of
from kdmesh.plugins import registry
from kdmesh.spec import (
    DEFAULT_RULE,
    AgentSpec,
    ConsensusSpec,
    FlowSpec,
    MeshSpec,
    ModelRef,
    ProgramItem,
    RuleRef,
    StreamSpec,
)
from kdmesh.spec.train import TrainOverride

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from kdmesh.graph.plan import Plan

Gated = TypeVar("Gated", FlowSpec, AgentSpec)


def alone(plan: Plan, student: str, updates: int) -> MeshSpec:
    """The student with its own label flows only, for as many updates as in the run.

    A student that no label trains gets the labels of `train`: what it could have learned without a teacher.
    """
    if (given := plan.inputs.get(student)) is not None:
        what = f"{student} sees what {given.source} says of a sample, so it learns nothing without it"
        raise MeshError(what, where=f"agents.{student}", instead="another student, or no controls")
    spec = plan.spec
    own = [
        FlowSpec(**{"from": LABELS, "to": student}, stream=edge.stream, objective=edge.objective)
        for edge in plan.edges
        if edge.source == LABELS and edge.target == student and not _written(spec, edge.stream)
    ]
    flows = own[:1] or [FlowSpec(**{"from": LABELS, "to": student}, objective=label_objective(spec, registry()))]
    begun, start = _begun(plan, student)
    agents = {**start, student: _budget(plan, student, updates)}
    return _by_labels(_mesh(plan, agents, [*flows, *begun], f"{spec.name}.{student}.alone"))


def _begun(plan: Plan, student: str) -> tuple[list[FlowSpec], dict[str, AgentSpec]]:
    """The flows that bring a student weights of frozen agents before it learns, with which it starts; and these."""
    found = [
        flow
        for flow in plan.resolved().flows
        if flow.as_ == "weights" and flow.to == [student] and flow.refresh == "once" and _is_frozen(plan, flow.from_[0])
    ]
    return found, {flow.from_[0]: _frozen(plan, flow.from_[0]) for flow in found}


def _is_frozen(plan: Plan, name: str) -> bool:
    return name in plan.owner and plan.owner[name] not in plan.trainable


def apart(plan: Plan, student: str) -> str | None:
    """The private stream by whose labels a student learns while others have the rest of it, if there is one."""
    hidden = private_streams(plan.spec)
    own = [edge.stream for edge in plan.edges if edge.source == LABELS and edge.target == student]
    return next((name for name in own if name in hidden and divided(plan.spec, name)), None)


def pooled(plan: Plan, student: str, updates: int) -> MeshSpec | None:
    """The student with the labels of all who share its private stream; None where it has none."""
    if (stream := apart(plan, student)) is None:
        return None
    made = alone(plan, student, updates)
    name = f"{stream}-pooled"
    while name in plan.spec.streams:
        name += "-"
    flows = [flow if flow.as_ == "weights" else flow.model_copy(update={"stream": name}) for flow in made.flows]
    streams = {**made.streams, name: StreamSpec(of=stream, pooled=True)}
    return made.model_copy(update={"name": f"{plan.spec.name}.{student}.pooled", "streams": streams, "flows": flows})


def averaged(plan: Plan, student: str, updates: int) -> MeshSpec | None:
    """All that share a student's private stream and have its model, whose weights are averaged each round (FedAvg).

    None where there are no others, or weights flow between them in the mesh itself. All start with the weights of the
    first, and have ``updates`` each, in as many rounds as the mesh has.
    """
    stream, spec = apart(plan, student), plan.spec
    among = [
        edge
        for edge in plan.edges
        if edge.source == LABELS and edge.stream == stream and _alike(plan, student, edge.target)
    ]
    members = list(dict.fromkeys(edge.target for edge in among))
    reached = plan.merging.sources()
    if stream is None or len(members) < 2 or any(name in reached for name in members):
        return None
    server, rounds = "average", min(_rounds(plan, student), updates)
    while server in spec.agents or server in spec.consensus:
        server += "-"
    first = _own(plan, members[0])
    start = {"weights": first.weights, "new_head": first.new_head, "seed": first.seed}
    usual = {"epochs": None, "steps": None}
    agents = {
        name: (own := _own(plan, name)).model_copy(update={**start, "train": own.train.model_copy(update=usual)})
        for name in members
    }
    agents[server] = first.model_copy(update={"update": "merged", "train": TrainOverride(), "gate": None})
    arrives = {"as": "weights", "refresh": "round"}
    flows = [
        FlowSpec(**{"from": LABELS, "to": edge.target}, stream=edge.stream, objective=edge.objective)
        for edge in {edge.target: edge for edge in reversed(among)}.values()
    ]
    flows += [
        FlowSpec(**{"from": members, "to": server, **arrives}, weight="samples", stream=stream, discloses="weights"),
        FlowSpec(**{"from": server, "to": members, **arrives}),
    ]
    lines = [
        ProgramItem(train=members, steps=updates // rounds * plan.train(student).accumulate),
        ProgramItem(publish=members),
        ProgramItem(publish=[server]),
    ]
    program = [ProgramItem(of=[*members, server], repeat=rounds, do=lines)]
    return _by_labels(_mesh(plan, agents, flows, f"{spec.name}.averaged", program))


def _alike(plan: Plan, one: str, other: str) -> bool:
    """Whether two agents have weights of their own that may be averaged: of one model, for the same classes."""
    first, second = plan.spec.agents[one], plan.spec.agents[other]
    same = all(getattr(first, field) == getattr(second, field) for field in ("model", "labels", "exit"))
    return same and plan.owner[other] == other and plan.owner[one] == one and second.learns


def _rounds(plan: Plan, student: str) -> int:
    """The rounds of a student's stage, or else its epochs."""
    stage = plan.stage_of(student)
    lines = [line.times for line in stage.program.body if isinstance(line, Repeat)] if stage is not None else []
    return max(lines, default=0) or plan.train(student).epochs


def _by_labels(made: MeshSpec) -> MeshSpec:
    """A mesh without the settings that only the teaching of others has a use of."""
    whole = made.text.model_copy(update={"vocabulary": type(made.text).model_fields["vocabulary"].default})
    usual = made.train.model_copy(
        update={name: type(made.train).model_fields[name].default for name in ("epochs", "steps")}
    )
    return made.model_copy(update={"text": whole, "train": usual})  # no other's words to fit; its budget is its own


def from_best(plan: Plan, student: str, best: str, saved: Path) -> MeshSpec | None:
    """The student with one teacher: flows from the others are dropped. None where nothing would change.

    ``saved``: the teacher's folder; it is not trained again. MeshError where it teaches only on what others write.
    """
    spec = plan.spec
    drop = set(teachers_of(plan, student)) - {best, student}
    if not drop or best not in teachers_of(plan, student):
        return None
    stage = plan.stage_of(student)
    kept = {best, student}
    reached = {student, *plan.consensus}
    flows = [_gated(flow, kept) for flow in plan.resolved().flows if flow.to[0] in reached and flow.as_ != "weights"]
    sources = kept | {LABELS} | set(plan.consensus)
    while any(flow.from_[0] not in sources for flow in flows):
        flows = [flow for flow in flows if flow.from_[0] in sources]
        sources = kept | {LABELS} | {flow.to[0] for flow in flows if flow.to[0] in spec.consensus}
    lost = {flow.stream: flow for flow in flows if flow.stream is not None and _lost(spec, flow.stream, kept)}
    flows = [flow for flow in flows if flow.stream not in lost]
    if lost and not any(best in flow.from_ for flow in flows):
        what = f"{best} teaches {student} only on texts that other agents write ({', '.join(map(str, lost))})"
        raise MeshError(what, where=f"agents.{student}", instead="a stream that the teacher or student writes")
    if all(flow.to[0] != student for flow in flows):
        return None
    learned = _again(plan, best, saved) if plan.owner[best] in plan.trainable else {}
    teacher = _frozen(plan, best, **learned)
    mine = [item for item in spec.program if stage is not None and set(item.of or ()) & set(stage.agents)]
    program = [_only(item, student) for item in mine]
    learner = _gated(_own(plan, student).model_copy(update={"gate": spec.agents[student].gate}), kept)
    return _mesh(plan, {best: teacher, student: learner}, flows, f"{spec.name}.{student}.best", program)


def unseeded(plan: Plan, mesh: MeshSpec, whole: Collection[str]) -> MeshSpec:
    """A control without seeds of weights of which none is drawn, ``whole``: those of which a file has every one."""
    fields, first = {"seed": None}, next(name for name in mesh.agents if name in plan.owner)
    agents = {  # who is no agent of the plan, an average, starts as the first does
        name: agent.model_copy(update=fields)
        if origin(plan, plan.owner.get(name, plan.owner[first])) in whole
        else agent
        for name, agent in mesh.agents.items()
    }
    return mesh.model_copy(update={"agents": agents})


def _gated(part: Gated, kept: Collection[str]) -> Gated:
    """A flow or an agent, without a gate that looks at an agent which is not ``kept``."""
    lost = part.gate is not None and part.gate.of and part.gate.of not in kept
    return part.model_copy(update={"gate": None}) if lost else part


def _again(plan: Plan, best: str, saved: Path) -> dict[str, object]:
    """Where a teacher's weights are: in a file, or, of a model that has a form of its own, in the whole folder."""
    if not (saved / OURS).is_file():
        return {"weights": str(saved / WEIGHTS), "new_head": None, "seed": None}
    model = _own(plan, best).model
    assert model is not None
    kept = {name: value for name, value in model.config.items() if name in ("attention", "max_length", "bi_encoder")}
    return {"model": model.model_copy(update={"config": {**kept, "path": str(saved)}}), "seed": None}


def _own(plan: Plan, name: str) -> AgentSpec:
    """An agent that needs no other: with the model it shares, and the file, or else the seed, it starts from."""
    owner = plan.spec.agents[plan.owner[name]]
    first = plan.spec.agents[origin(plan, plan.owner[name])]
    elsewhere = lookup(owner.model, registry()) or is_served(owner.model, registry())
    drawn = first.weights is None and not elsewhere
    seed = seed_of(plan, plan.owner[name]) if drawn else None
    start = {"weights": first.weights, "new_head": first.new_head, "seed": seed}
    alone = {"init_of": None, "weights_of": None, "gate": None}
    update = "grad" if owner.learns else "frozen"
    model = owner.model if update == "grad" else _still(owner.model)
    own = {"model": model, "train": owner.train, "update": update}
    return plan.spec.agents[name].model_copy(update={**start, **alone, **own})


def _frozen(plan: Plan, name: str, **learned: object) -> AgentSpec:
    """An agent that does not train here, without the settings of how it would."""
    agent = _own(plan, name)
    kept = {field: getattr(agent.train, field) for field in agent.train.model_fields_set if field not in LEARNING}
    return agent.model_copy(
        update={"update": "frozen", "train": TrainOverride(**kept), "model": _still(agent.model), **learned}
    )


def _still(model: ModelRef | None) -> ModelRef | None:
    """A model without settings that only weights which learn have a use of."""
    if model is None or model.is_import:
        return model
    learning = registry().find("models", model.name).learning
    return model.model_copy(update={"config": {key: one for key, one in model.config.items() if key not in learning}})


def _budget(plan: Plan, student: str, updates: int) -> AgentSpec:
    """The student with a budget of so many updates."""
    agent, steps = _own(plan, student), updates * plan.train(student).accumulate
    return agent.model_copy(update={"train": agent.train.model_copy(update={"steps": steps, "epochs": None})})


def _only(item: ProgramItem, student: str) -> ProgramItem:
    """A program with everyone but the student left out."""
    update: dict[str, object] = {}
    for field in ("of", "train", "publish"):
        if getattr(item, field) is not None:
            update[field] = [name for name in getattr(item, field) if name == student]
    if item.do is not None:
        lines = [_only(line, student) for line in item.do]
        update["do"] = [line for line in lines if line.publish != [] and line.train != []]
    return item.model_copy(update=update)


def _mesh(
    plan: Plan, agents: dict[str, AgentSpec], flows: list[FlowSpec], name: str, program: list[ProgramItem] | None = None
) -> MeshSpec:
    """A mesh of a few of the agents. Owners of shards stay, frozen, so that the shards stay the same.

    It is charged to no account: parties have no budget in it, and nobody trains with noise.
    """
    spec = plan.spec
    owned = any(party.data for party in spec.parties.values())  # whose samples only their parties bring
    places = {name: one.model_copy(update={"privacy": None}) for name, one in spec.parties.items()} if owned else {}
    used = {end for flow in flows for end in (*flow.from_, *flow.to)}
    owners = {owner for stream in spec.streams.values() if stream.shards for owner in stream.shards.of}
    owners |= {owner for party in places.values() for owner in party.agents}
    read = {flow.stream for flow in flows if flow.stream is not None}
    read |= {other for stream in read for other in written_before(spec, stream)}
    kept = {
        name: _filtered(one, agents)
        for name, one in spec.streams.items()
        if not one.generated_by or (name in read and not _lost(spec, name, agents))
    }
    idle = {owner: _frozen(plan, owner) for owner in spec.agents if owner in owners and owner not in agents}
    return spec.model_copy(
        update={
            "name": name,
            "agents": {one: _without_noise(agent) for one, agent in {**agents, **idle}.items()},
            "train": spec.train.model_copy(update={"private": None}),
            "connect": [],
            "streams": kept,
            "consensus": {key: _left(node, key, agents, flows) for key, node in spec.consensus.items() if key in used},
            "flows": flows,
            "program": program or [],
            "parties": places,
            "participation": None,
            "placement": "auto" if places else "together",
        }
    )


def _without_noise(agent: AgentSpec) -> AgentSpec:
    """An agent whose training no account pays for."""
    if agent.train.private is None:
        return agent
    return agent.model_copy(update={"train": agent.train.model_copy(update={"private": None})})


def _filtered(stream: StreamSpec, agents: dict[str, AgentSpec]) -> StreamSpec:
    """A stream without filters that read an agent which is left out."""
    left = [ref for ref in stream.keep or () if all(name in agents for name in ref.agents)]
    return stream if len(left) == len(stream.keep or ()) else stream.model_copy(update={"keep": left or None})


def _lost(spec: MeshSpec, stream: str, agents: Collection[str]) -> bool:
    """Whether a stream, or one that is read to write it, is written, or made pairs of, by none of these agents."""
    every = (spec.streams.get(name) for name in (stream, *written_before(spec, stream)))
    needed = [name for one in every if one is not None for name in (one.generated_by, one.judge)]
    return any(name is not None and name not in agents for name in needed)


def _written(spec: MeshSpec, stream: str) -> bool:
    """Whether an agent writes a stream."""
    return stream in spec.streams and spec.streams[stream].generated_by is not None


def _left(node: ConsensusSpec, name: str, agents: dict[str, AgentSpec], flows: list[FlowSpec]) -> ConsensusSpec:
    """A consensus of the sources that are left; `include_self: false` goes where none of these learns.

    A rule that does nothing with so few is the plain one.
    """
    sources = {flow.from_[0] for flow in flows if flow.to[0] == name}
    learners = {agent for agent, spec in agents.items() if spec.update != "frozen"}
    left = node if node.include_self or sources & learners else node.model_copy(update={"include_self": True})
    offer, count = registry().find("consensus", node.rule.name), len(sources)
    plain = offer.neutral and (count == 1 or unused(registry(), node.rule, count))
    return left.model_copy(update={"rule": RuleRef(name=DEFAULT_RULE)}) if plain else left
