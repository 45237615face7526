"""What a plan understands and no run does: fields that this version does not run, and fields that nothing would read.

A field left at its default says nothing, so only other values are refused: a long form with every default written out
is as good as a short one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.graph.agreed import refuse_agreed, refuse_measured
from kdmesh.graph.denominators import refuse_denominators, refuse_parts
from kdmesh.graph.edges import LABELS
from kdmesh.graph.fixed import refuse_fixed
from kdmesh.graph.forms import refuse_forms
from kdmesh.graph.histories import refuse_histories
from kdmesh.graph.kept import refuse_filters
from kdmesh.graph.looked_up import refuse_looked_up
from kdmesh.graph.merging import counted
from kdmesh.graph.mixing import refuse_mixing
from kdmesh.graph.pairs import refuse_pairs
from kdmesh.graph.program import Repeat
from kdmesh.graph.reach import readers
from kdmesh.graph.renewal import publications
from kdmesh.graph.rewards import refuse_rewards
from kdmesh.graph.rollouts import refuse_decoding, refuse_rollouts
from kdmesh.graph.served import refuse_served
from kdmesh.graph.until import refuse_until
from kdmesh.graph.views import of_samples
from kdmesh.graph.written import refuse_written
from kdmesh.offers import PROBABILITIES
from kdmesh.spec import DEFAULT_RULE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.merging import Pool, WeightFlow
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import AgentSpec, RuleRef, StreamSpec

LATER = "is understood, and not run by this version"
OUT = "leave it out"
LEARNING = (
    *("epochs", "steps", "drop_last", "optimizer", "schedule", "clip", "accumulate"),
    *("early_stopping", "keep_best", "evaluate_every"),
)
"""Settings that only weights which learn have a use of."""
STEPS = ("epochs", "steps", "optimizer", "schedule", "clip")
"""Those of them that say how weights are moved, which a follower's are by another's."""
OWN = ("weights", "seed", "init_of")
"""Where an agent's weights begin."""


def refuse_unrun(plan: Plan, registry: Registry, writers: Mapping[str, Any] | None = None) -> None:
    """Raise MeshError for the first thing in a mesh that no run would do, or that would do nothing.

    ``writers``: by stream that an agent generates, what Python gave to write it.
    """
    _text(plan)
    for number, item in enumerate(plan.spec.program):
        refuse_until(plan, item, f"program.{number}")
    for name, stream in plan.spec.streams.items():
        _stream(stream, plan.at(f"streams.{name}"), name in (writers or {}))
    _keep(plan)
    refuse_written(plan, writers or {})
    refuse_rollouts(plan)
    refuse_denominators(plan)
    refuse_parts(plan)
    refuse_pairs(plan)
    refuse_decoding(plan, registry)
    refuse_forms(plan, registry)
    refuse_histories(plan)
    refuse_agreed(plan, registry)
    refuse_measured(plan, registry)
    refuse_filters(plan, registry)
    refuse_rewards(plan, registry)
    refuse_looked_up(plan, registry)
    refuse_served(plan, registry)
    refuse_fixed(plan, registry)
    refuse_mixing(plan, registry)
    for name, agent in plan.spec.agents.items():
        _agent(plan, registry, name, agent, plan.at(f"agents.{name}"))
    for edge in plan.edges:
        _ends(plan, edge)
        _carried(edge, registry)
        _published(plan, edge)
    for flow in plan.merging.flows:
        if flow.target in plan.spec.agents:
            _flows(plan, flow)
    _judged(plan)
    _settings(plan, registry)
    for name, pool in plan.merging.pools.items():
        _few(plan, registry, pool, [flow.source for flow in pool.inputs], f"consensus.{name}")
    for name, node in plan.consensus.items():
        _node(plan, registry, node, f"consensus.{name}")


def _node(plan: Plan, registry: Registry, node: ConsensusNode, where: str) -> None:
    """Settings of a consensus that its rule, or who reads it, has no use of."""
    spec = plan.spec.consensus[node.name]
    if spec.trained and not registry.find("consensus", node.rule.name).trained:
        what = f"rule {node.rule.name!r} has no weights to train"
        raise MeshError(what, where=plan.at(f"{where}.trained"), instead=OUT)
    if spec.per_target and node.space in ("loss", "gradient"):
        what = f"in space {node.space} a rule weighs the sources for each reader anyway"
        raise MeshError(what, where=plan.at(f"{where}.per_target"), instead=OUT)
    if spec.temperature is not None and node.space not in PROBABILITIES:
        what = f"{node.name} combines {node.space}, so that its `temperature` has no effect"
        instead = f"{OUT}: readers have their own, in their objectives; or space: {' or '.join(PROBABILITIES)}"
        raise MeshError(what, where=plan.at(f"{where}.temperature"), instead=instead)
    _few(plan, registry, node, [edge.source for edge in node.members], where)
    if not spec.include_self and not _taught(plan, node) & {edge.source for edge in node.members}:
        what = "none of its readers is one of its sources, so this has no effect"
        raise MeshError(what, where=plan.at(f"{where}.include_self"), instead=OUT)


def _few(plan: Plan, registry: Registry, node: ConsensusNode | Pool, sources: list[str], where: str) -> None:
    """Rules, and settings of one, that do nothing with so few sources."""
    offer, count = registry.find("consensus", node.rule.name), len(sources)
    if count == 1 and offer.neutral and node.rule.name != DEFAULT_RULE:
        what = f"rule {node.rule.name!r} has no effect: {sources[0]} is the only source of {node.name}"
        instead = f"several sources, or rule: {DEFAULT_RULE}, or a flow from {sources[0]} itself"
        raise MeshError(what, where=plan.at(f"{where}.rule"), instead=instead)
    for setting, fits in unused(registry, node.rule, count).items():
        if setting not in node.rule.config:
            continue  # of a default, `idle` tells
        what = f"`{setting}` of {node.rule.name} has no effect with {count} source{'s' if count > 1 else ''}"
        raise MeshError(what, where=plan.at(f"{where}.rule.{node.rule.name}.{setting}"), instead=fits)


def unused(registry: Registry, rule: RuleRef, sources: int) -> dict[str, str]:
    """Settings of a rule that do nothing with so many sources, by its offer, each with what to write instead."""
    config = registry.check("consensus", rule.name, rule.config)
    found: dict[str, str] = getattr(config, "unused", lambda sources: {})(sources)
    return found


def _taught(plan: Plan, node: ConsensusNode) -> set[str]:
    """The agents that a consensus reaches, also through others."""
    found: set[str] = set()
    for edge in node.readers:
        inner = plan.consensus.get(edge.target)
        found |= {edge.target} if inner is None else _taught(plan, inner)
    return found


def _set(part: BaseModel, *names: str) -> str:
    """The first of these fields that is not at its default; empty if all are."""
    fields = type(part).model_fields
    for name in names:
        if getattr(part, name) != fields[name].get_default(call_default_factory=True):
            return name
    return ""


def _text(plan: Plan) -> None:
    """What only language models do."""
    field = _set(plan.spec.text, "pack", "vocabulary")
    if field and plan.task.source != "tokens":
        what = f"`{field}` is for task: language_modelling, and this mesh has {plan.task.name}"
        raise MeshError(what, where=f"text.{field}", instead=OUT)
    if _set(plan.spec.text, "vocabulary") and not any(matched(edge) for edge in plan.edges):
        what = "no flow compares the outputs of two models token by token, so that this has no effect"
        raise MeshError(what, where="text.vocabulary", instead=OUT)


def matched(edge: Edge) -> bool:
    """Whether an edge carries outputs that are compared, or combined, one by one with those of another model."""
    return edge.source != LABELS and edge.form != "hidden" and "spans" not in edge.needs and edge.as_ == "target"


def _keep(plan: Plan) -> None:
    """Terms of what the run does not make."""
    keep, spec = plan.spec.keep, plan.spec
    if keep is None:
        return
    if not keep.terms():
        raise MeshError("names no term", where="keep", instead="keep: {checkpoints: end, texts: 30d}, or leave it out")
    if keep.personal and (spec.data is None or spec.data.personal is None):
        raise MeshError("no personal data is looked for, so there is no log", where="keep.personal", instead=OUT)
    served = any(one.model is not None and one.model.name == "api" for one in spec.agents.values())
    if keep.texts and not served and not any(one.generated_by or one.consensus_of for one in spec.streams.values()):
        raise MeshError("no agent writes texts, and none is behind an endpoint", where="keep.texts", instead=OUT)


def _stream(stream: StreamSpec, where: str, written: bool) -> None:
    if stream.generated_by is not None and stream.prompts is None and not written:
        raise MeshError(
            f"a stream that an agent generates, without prompts and without a writer from Python, {LATER}",
            where=f"{where}.generated_by",
            instead="prompts: a stream of prompts or chats, which it answers; or a stream `of` a split",
        )
    for field in ("prompts", "refresh", "sampling", "mix", "keep", "template", "reads", "label"):
        if stream.generated_by is None and getattr(stream, field) is not None:
            what = f"no agent writes this stream, so `{field}` has no effect"
            raise MeshError(what, where=f"{where}.{field}", instead=f"generated_by: the agent that does, or {OUT}")
    if stream.pooled and (field := _set(stream, *(type(stream).model_fields.keys() - {"of", "pooled", "labels"}))):
        what = f"a stream that pools samples has all of `of`, so `{field}` has no effect"
        raise MeshError(what, where=f"{where}.{field}", instead=f"{OUT}, or a stream of this one with it")
    if stream.shards is None:
        return
    for field, by in (("alpha", "dirichlet"), ("classes", "class"), ("column", "column")):
        if stream.shards.by != by and _set(stream.shards, field):
            raise MeshError(
                f"`{field}` has no effect on shards `by: {stream.shards.by}`",
                where=f"{where}.shards.{field}",
                instead=f"by: {by}, or {OUT}",
            )


def _still(plan: Plan, registry: Registry, name: str, agent: AgentSpec, where: str) -> None:
    """Settings of a model for learning, at weights that no gradient reaches."""
    if agent.model is None or agent.model.is_import or agent.update == "grad":
        return
    offer = registry.find("models", agent.model.name)
    sent = [registry.find("signals", edge.derived.name) for edge in plan.edges if edge.source == name and edge.derived]
    if any("module" in signal.needs or signal.gradient for signal in sent):
        return  # of its forward, gradients are made
    config = registry.check("models", agent.model.name, agent.model.config, f"{where}.model")
    for field in offer.learning:
        if _set(config, field):
            how = f"follow those of {agent.ema.of}" if agent.ema is not None else "are frozen"
            what = f"{name}'s weights {how}, so that no gradient passes and `{field}` has no effect"
            raise MeshError(what, where=f"{where}.model.{offer.name}.{field}", instead=f"{OUT}, or update: grad")


def _agent(plan: Plan, registry: Registry, name: str, agent: AgentSpec, where: str) -> None:
    if agent.view.draws is not None and not of_samples(agent.view, plan.mixed.get(name)):
        instead = f"augment: [shift], or {OUT}"
        raise MeshError("there are no augmentations to draw", where=f"{where}.view.draws", instead=instead)
    if agent.weights_of is not None and (field := _set(agent, *OWN, "train")):
        raise MeshError(
            f"{name} shares the weights of {agent.weights_of}, so its own `{field}` has no effect",
            where=f"{where}.{field}",
            instead=f"write it at {agent.weights_of}, or {OUT}",
        )
    given = [field for field in OWN if _set(agent, field)]
    if len(given) > 1:
        raise MeshError(
            f"its initial weights are given twice: {' and '.join(f'`{field}`' for field in given)}",
            where=f"{where}.{given[-1]}",
            instead=f"one of: {', '.join(OWN)}",
        )
    followed = None if agent.ema is None else plan.spec.agents[plan.owner[agent.ema.of]]
    if followed is not None and agent.model is not None and (field := _set(followed, "prune", "quantize")):
        what = f"{name} has a model of its own, to which the `{field}` of the weights that it follows is not done"
        raise MeshError(what, where=f"{where}.model", instead=f"{OUT}: it then has theirs")
    if agent.quantize is not None and plan.task_of(name).outputs == "vocabulary":
        what = f"{name} is a language model, whose last layer is read past its rounding"
        raise MeshError(what, where=f"{where}.quantize", instead=f"{OUT}; files of GGUF have few bits too")
    if agent.new_heads and agent.weights is None:
        what = "a new head is put on weights that are read, and there is no `weights`"
        raise MeshError(what, where=f"{where}.new_head", instead=f"weights: FILE, or {OUT}")
    if agent.new_heads and not agent.learns:
        what = f"the weights of {name} do not learn by gradient, so that its new head would stay random"
        raise MeshError(what, where=f"{where}.new_head", instead=f"update: grad, or {OUT}")
    if agent.prepare is not None:
        _prepares(plan, name, f"{where}.prepare")
    _still(plan, registry, name, agent, where)
    owner = plan.spec.agents[plan.owner[name]]
    if agent.saved is not None and owner.update != "frozen":
        how = "follow those of another" if owner.ema else "train" if owner.learns else "are merged"
        what = f"{name}'s weights {how}, so the run's folder has them anyway"
        raise MeshError(what, where=f"{where}.saved", instead=f"{OUT}; it is for agents with update: frozen")
    if agent.update == "frozen" and (field := _set(agent.train, *LEARNING)):
        what = f"{name} is frozen, so `{field}` has no effect"
        raise MeshError(what, where=f"{where}.train.{field}", instead=f"{OUT}, or update: grad")
    if agent.update == "merged" and (field := _set(agent.train, *STEPS, "accumulate", "early_stopping", "keep_best")):
        what = f"{name}'s weights are merged of those that flow into it, so `{field}` has no effect"
        raise MeshError(what, where=f"{where}.train.{field}", instead=OUT)
    if agent.ema is not None and (field := _set(agent.train, *STEPS)):
        what = f"{name}'s weights follow those of {agent.ema.of}, so its own `{field}` has no effect"
        instead = f"write it at {agent.ema.of}, or {OUT}"
        raise MeshError(what, where=f"{where}.train.{field}", instead=instead)


def _prepares(plan: Plan, name: str, where: str) -> None:
    """Refuse a `prepare` of an agent that sees no samples of the data, or some that are not prepared for it."""
    if name in plan.inputs:
        what = f"{name} sees what {plan.inputs[name].source} says of a sample, and no sample"
        raise MeshError(what, where=where, instead=OUT)
    for edge in plan.edges:
        stream = plan.spec.streams.get(edge.stream)
        if name in (edge.source, edge.target) and stream is not None and stream.generated_by and not stream.prompts:
            what = f"{name} sees {edge.stream!r}, whose samples are written as `data.prepare` leaves them"
            raise MeshError(what, where=where, instead="data.prepare, for all agents alike")


def _ends(plan: Plan, edge: Edge) -> None:
    """How a flow is used, by what it leaves and where it ends."""
    to_agent, from_agent = edge.target in plan.spec.agents, edge.source in plan.spec.agents
    if edge.as_ == "gate":
        return
    if not to_agent and edge.weight != 1.0:
        raise MeshError(
            "a flow into a consensus has no loss, so its `weight` has no effect",
            where=f"{edge.where}.weight",
            instead="a rule with weights, {weighted: {weights: [...]}}, or a weight on the flow from the consensus",
        )
    if not to_agent and edge.lesson is not None:
        raise MeshError(
            "a flow into a consensus belongs to every lesson that reads the consensus",
            where=f"{edge.where}.lesson",
            instead="`lesson` on the flow from the consensus",
        )
    for field, value, usual in (("mode", edge.mode, "auto"), ("sees", edge.sees, "before")):
        if not from_agent and value != usual:
            instead = "leave it out" if edge.source == LABELS else "write it on the flows into the consensus"
            what = f"`{field}` is about an agent's forward, and this flow leaves {edge.source}"
            raise MeshError(what, where=f"{edge.where}.{field}", instead=instead)
    if edge.source == LABELS and not edge.detach:
        raise MeshError("labels take no gradient", where=f"{edge.where}.detach", instead=OUT)


def _flows(plan: Plan, flow: WeightFlow) -> None:
    """Weights flow at a time that comes."""
    stage = plan.stage_of(flow.target)
    assert stage is not None  # of frozen agents none is the target
    published = [(line.agents, line.to) for line in publications(stage.program.body)]
    for leaf in plan.merging.behind(flow):
        if leaf.refresh == "round" and not any(
            leaf.source in agents and to in (None, leaf.target) for agents, to in published
        ):
            raise MeshError(
                f"weights of {leaf.source} flow where the program of {flow.target} publishes them, and no line does",
                where=f"{leaf.where}.refresh",
                instead=f"program: [{{of: [...], repeat: N, do: [..., {{publish: {leaf.source}}}]}}], or epoch",
            )
        if leaf.refresh not in ("once", "round") and not stage.phases:
            what = f"nothing trains where {flow.target} does, so no step or epoch ends there"
            raise MeshError(what, where=f"{leaf.where}.refresh", instead="refresh: once")
    for pool, leaf in counted(plan.merging):
        if leaf.refresh == "once":
            what = f"rule {pool.rule.name!r} keeps count of what flows again and again, and {leaf} flows once"
            raise MeshError(what, where=f"{leaf.where}.refresh", instead="epoch, round or N steps; or another rule")


def _judged(plan: Plan) -> None:
    """Refuse rules that ask for the errors of an agent with an input, which measures itself as it publishes."""
    for name in plan.inputs:
        if plan.judged(name):
            node = next(
                n for n in plan.consensus.values() if n.needs_errors and any(e.source == name for e in n.members)
            )
            what = f"rule {node.rule.name!r} asks for errors of {name}, which sees an input in the place of samples"
            raise MeshError(what, where=plan.at(f"consensus.{node.name}.rule"), instead="another rule")


def _carried(edge: Edge, registry: Registry) -> None:
    """What a flow carries, and which layer it names."""
    offer = registry.find("signals", edge.derived.name) if edge.derived is not None else None
    if edge.tap is not None and "hidden" not in (edge.signal, edge.reads, offer.reads if offer else ""):
        raise MeshError(
            f"{edge} carries and compares outputs, so its `tap` has no effect",
            where=f"{edge.where}.tap",
            instead=f"an objective that reads layers (hint ...), or {OUT}",
        )


def _settings(plan: Plan, registry: Registry) -> None:
    """Settings of an objective that no edge of its flow has a use of: each reads targets of some forms alone."""
    flows: dict[tuple[str, str], list[Edge]] = {}
    texts: dict[int, str] = {}  # a flow's edges share one objective
    for edge in plan.edges:
        if edge.objective is not None and edge.objective.config:
            key = id(edge.objective)
            text = texts[key] = texts.get(key) or repr(edge.objective)
            flows.setdefault((edge.where, text), []).append(edge)
    for (where, _), edges in flows.items():
        objective = edges[0].objective
        assert objective is not None
        offer = registry.find("objectives", objective.name)
        config = registry.check("objectives", objective.name, objective.config, f"{where}.objective")
        carried = dict.fromkeys(edge.form for edge in edges)
        for field, forms in offer.forms_of.items():
            if not carried.keys() & {*forms} and _set(config, field):
                raise MeshError(
                    f"`{field}` of {offer.name} is for targets that are {' or '.join(forms)}, and {edges[0]} carries "
                    f"{' and '.join(carried)}, so it has no effect",
                    where=f"{where}.objective.{offer.name}.{field}",
                    instead=OUT if "labels" not in forms else f"{OUT}, or on the flow from labels",
                )


def _moves(plan: Plan, edge: Edge) -> bool:
    """Whether the source of an edge is read live, by agents that train in one stage with it."""
    stage = plan.stage_of(edge.source)
    own = () if stage is None else stage.agents
    return edge.live and any(name in own for name in readers(edge.target, plan.consensus))


def _published(plan: Plan, edge: Edge) -> None:
    """When and how an agent's signal is published, and what has to be known for it."""
    if "hidden" in (edge.reads, edge.form) and edge.derived is None and edge.tap is None:
        raise MeshError(
            f"{edge} carries a hidden signal and needs to know the layers",
            where=f"{edge.where}.tap",
            instead="tap: layers.0, or tap: {of: layers.2, to: layers.0}",
        )
    view = plan.spec.agents[edge.source].view if edge.source in plan.spec.agents else None
    several = view is not None and view.draws != 1 and of_samples(view, plan.mixed.get(edge.source))
    if several and edge.stale == "publish":
        raise MeshError(
            f"{edge.source} sees a new draw of every sample each epoch, but its published signal would hold only one",
            where=f"agents.{edge.source}.view.draws",
            instead="draws: 1, or refresh: step on the flow",
        )
    if edge.mode == "train" and edge.source in plan.spec.agents and not edge.live and edge.stale != "recorded":
        raise MeshError(
            f"what {edge.source} publishes is made in eval mode",
            where=f"{edge.where}.mode",
            instead="refresh: step, or leave out `mode`",
        )
    if edge.sees == "after" and edge.source in plan.spec.agents and not _moves(plan, edge):
        raise MeshError(
            f"{edge.source} is not updated in the steps in which it is read, so there is no `after` to see",
            where=f"{edge.where}.sees",
            instead=f"{OUT}; it is for sources that train in the same stage, with refresh: step",
        )
    if edge.stale == "recorded":
        stream = plan.spec.streams.get(edge.stream)
        seen = stream.of if stream is not None and stream.replay else edge.stream
        if all((other.target, other.stream) != (edge.source, seen) for other in plan.edges):
            raise MeshError(
                f"{edge.source} does not train on stream {seen!r}, so nothing of it is recorded there",
                where=f"{edge.where}.stale",
                instead="stale: publish",
            )
    if "round" in (edge.refresh, edge.renewed):
        stage = plan.stage_of(edge.source if edge.renewed is None else edge.target)
        if stage is not None and not any(isinstance(line, Repeat) for line in stage.program.body):
            raise MeshError(
                "`refresh: round` needs a program with rounds",
                where=f"{edge.where}.refresh",
                instead="program: [{of: [...], repeat: N, do: [...]}], or refresh: epoch",
            )
