"""What structure alone can tell is wrong, said before anything is imported or started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

from kdmesh.errors import MeshError, nearest
from kdmesh.graph import parties, private
from kdmesh.graph.edges import LABELS, Edge
from kdmesh.graph.language_models import language_models, writing_task
from kdmesh.graph.nodes import ConsensusNode, labelled
from kdmesh.graph.sources import below
from kdmesh.graph.task import task_of
from kdmesh.offers import PROBABILITIES

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.graph.stages import WeightSets
    from kdmesh.offers import ObjectiveOffer, TaskOffer
    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec

Classes = tuple[int, ...] | None  # what an agent's outputs stand for; None: every class of the data
OF = {"probs": "classes, which sum to 1", "marginals": "labels, each on its own"}  # probabilities by their space
TRAINS = "name an agent that trains by gradient, or write `update: frozen`"


def agents(spec: MeshSpec, registry: Registry) -> None:
    """Models, views and references between agents exist, and their settings are valid."""
    seen: set[str] = set()
    for name, agent in spec.agents.items():
        where = f"agents.{name}"
        for field, other in (("init_of", agent.init_of), ("update.ema.of", agent.ema.of if agent.ema else None)):
            if other is not None and (other not in spec.agents or other == name):
                raise MeshError(
                    f"unknown agent {other!r}" if other != name else "an agent cannot refer to itself",
                    where=f"{where}.{field}",
                    instead=nearest(other, [agent for agent in spec.agents if agent != name], "agents"),
                )
        if agent.weights_of is not None and agent.update != "grad":
            raise MeshError(
                "an agent that shares weights has no update of its own",
                where=f"{where}.update",
                instead=f"write `update` at the weights' owner, {agent.weights_of}, or leave `weights_of` out",
            )
        if agent.model is not None:
            if agent.weights_of is not None:
                raise MeshError(
                    "an agent that shares weights has no model of its own",
                    where=f"{where}.model",
                    instead="leave `model` or `weights_of` out",
                )
            key = repr(agent.model)
            if not agent.model.is_import and key not in seen:
                registry.check("models", agent.model.name, agent.model.config, f"{where}.model")
                seen.add(key)
        for number, view in enumerate(agent.view.augment):
            registry.check("views", view.name, view.config, f"{where}.view.augment.{number}")
        for number, rule in enumerate(agent.prune):
            at = f"{where}.prune.{number}"
            registry.check("prunings", rule.name, rule.config, at)
            if registry.find("prunings", rule.name).takes == "weights" and number + 1 < len(agent.prune):
                what = f"`{rule.name}` comes last, and once: zeros are of the weights that are left"
                raise MeshError(what, where=at, instead="what takes units before it")
    if spec.data is not None and not spec.data.dataset.is_import:
        registry.check("datasets", spec.data.dataset.name, spec.data.dataset.config, "data.dataset")


def _pool(spec: MeshSpec, registry: Registry) -> bool:
    """Whether the data may bring samples without labels; of those that Python gives only they themselves know."""
    assert spec.data is not None
    dataset = spec.data.dataset
    return dataset.is_import or registry.find("datasets", dataset.name).pool


def streams(spec: MeshSpec, edges: list[Edge], registry: Registry) -> None:
    """Streams that flows name exist, and labels are only read where there are any."""
    known = {*spec.starts, *spec.streams}
    checked: set[str] = set()
    for name, stream in spec.streams.items():
        where = f"streams.{name}"
        if name in spec.starts:
            raise MeshError(f"{name!r} is a split", where=where, instead="give the stream another name")
        mixed = [("mix.of", stream.mix.of)] if stream.mix is not None else []
        named = [
            ("of", stream.of),
            *mixed,
            ("prompts", stream.prompts),
            *(("rest_of", one) for one in stream.rest_of or ()),
            *stream.made_of.items(),
        ]
        for field, other in named:
            if other is not None and other not in known:
                raise MeshError(
                    f"unknown stream {other!r}", where=f"{where}.{field}", instead=nearest(other, known, "streams")
                )
        if stream.pooled and stream.of not in private.private_streams(spec):
            what = f"{stream.of!r} is not private, so there is nothing to pool"
            raise MeshError(what, where=f"{where}.pooled", instead="leave it out, or `of` a private stream")
        for field, names in (
            ("shards.of", stream.shards.of if stream.shards else []),
            ("generated_by", [stream.generated_by]),
        ):
            for agent in names:
                if agent is not None and agent not in spec.agents:
                    raise MeshError(
                        f"unknown agent {agent!r}",
                        where=f"{where}.{field}",
                        instead=nearest(agent, spec.agents, "agents", several=field == "shards.of"),
                    )
    _circle(spec)
    _rests(spec)
    parties.check_streams(spec)
    for edge in edges:
        if edge.stream in checked:
            continue
        checked.add(edge.stream)
        where = f"{edge.where}.stream"
        if edge.stream not in known and spec.data is not None:
            raise MeshError(
                f"unknown stream {edge.stream!r}", where=where, instead=nearest(edge.stream, known, "streams")
            )
        reached = {edge.stream, *below(spec, edge.stream)}
        if "transfer" in reached and spec.data is not None and not spec.data.transfer and not _pool(spec, registry):
            raise MeshError(
                "this mesh uses the transfer split, which is empty", where="data.transfer", instead="transfer: 0.3"
            )
        if "test" in reached:
            where = next((at for one in (edge.stream, *below(spec, edge.stream)) if (at := _of_test(spec, one))), where)
            raise MeshError("the test split cannot be used for training", where=where, instead="train, or transfer")
    task = task_of(spec, registry)
    write, writing = language_models(spec, task, registry), writing_task(registry)
    for edge in edges:
        _answers(edge, writing if edge.target in write else task, registry)
        if "spans" in edge.needs and edge.objective and task.source != "tokens":
            raise MeshError(
                f"objective {edge.objective.name!r} compares spans of text, and this mesh models no text",
                where=f"{edge.where}.objective",
                instead="an objective on classes (kl ...), or task: language_modelling",
            )
        own = "spans" in edge.needs  # the labels are tokens of the text itself
        if "labels" in edge.needs and not own and edge.objective and not labelled(spec, edge.stream):
            raise MeshError(
                f"objective {edge.objective.name!r} needs labels, and stream {edge.stream!r} has none",
                where=f"{edge.where}.objective",
                instead="an objective without labels (kl ...), or a labelled stream",
            )
        if edge.source == LABELS and not labelled(spec, edge.stream):
            raise MeshError(
                f"stream {edge.stream!r} has no labels to learn from",
                where=f"{edge.where}.stream",
                instead="a labelled stream, or a flow from a teacher",
            )


def _answers(edge: Edge, task: TaskOffer, registry: Registry) -> None:
    """Refuse an objective that does not read the task's labels, or that compares probabilities where there are none."""
    offer = registry.find("objectives", edge.objective.name) if edge.objective is not None else None
    reads = offer is not None and (edge.source == LABELS or ("labels" in offer.needs and task.source == "table"))
    if offer is not None and reads and task.labels not in offer.labels:
        raise MeshError(
            f"objective {offer.name!r} does not read labels that are {task.labels}, as those of task {task.name}: it "
            f"reads labels that are {' or '.join(offer.labels)}",
            where=f"{edge.where}.objective",
            instead=f"{task.objective}, the loss of this task",
        )
    for space in PROBABILITIES:
        if space in task.spaces:
            continue
        if offer is not None and offer.reads == "logits" and space in offer.forms:
            fit = [one.name for one in registry.offers("objectives") if _compares(one, task)]
            raise MeshError(
                f"objective {offer.name!r} compares probabilities of {OF[space]}, and answers of task {task.name} are "
                f"{task.labels}",
                where=f"{edge.where}.objective",
                instead=f"one that compares such answers: {', '.join(fit)}",
            )
        if edge.form == space and edge.derived is not None:
            raise MeshError(
                f"the signal {edge.derived.name!r} is made of probabilities of {OF[space]}, and answers of task "
                f"{task.name} are {task.labels}",
                where=f"{edge.where}.signal",
                instead="leave it out",
            )


def _compares(offer: ObjectiveOffer, task: TaskOffer) -> bool:
    """Whether an objective compares two answers of a task."""
    odd = [space for space in PROBABILITIES if space in offer.forms and space not in task.spaces]
    return offer.reads == "logits" and "logits" in offer.forms and not offer.needs and not odd


def gradients(spec: MeshSpec, edges: list[Edge], found: WeightSets, consensus: dict[str, ConsensusNode]) -> None:
    """Refuse `detach: false` where no gradient can pass, so that it would do nothing."""
    for edge in edges:
        if edge.detach:
            continue
        owner = found.of(edge.source)
        reason, instead = "", "leave `detach` out"
        if edge.source == LABELS:
            reason = "labels have no weights"
        elif edge.source in consensus:
            node = consensus[edge.source]
            if not node.trained and all(other.detach for other in node.inputs):
                reason = f"every flow into {edge.source} is detached, and its rule has no weights"
                instead = f"detach: false on a flow into {edge.source} as well, or leave it out"
        elif owner not in found.trainable or spec.agents[owner].ema is not None:
            reason = f"{edge.source} does not train by gradient"
        elif edge.refresh != "step" or edge.sees == "after" or edge.mode == "eval":
            reason = "only what is forwarded in the step itself, before the update and in train mode, carries one"
            instead = "refresh: step, without `sees: after` and `mode: eval`, or leave `detach` out"
        if not reason and edge.target in consensus and all(other.detach for other in consensus[edge.target].readers):
            reason = f"every flow out of {edge.target} is detached"
            instead = f"detach: false on a flow out of {edge.target} as well, or leave it out"
        if reason:
            raise MeshError(
                f"no gradient passes through {edge}: {reason}", where=f"{edge.where}.detach", instead=instead
            )


def errors(spec: MeshSpec, consensus: dict[str, ConsensusNode], registry: Registry) -> None:
    """Refuse sources of whose answers no error on validation goes along, where a rule asks for it."""
    task = task_of(spec, registry)
    for node in consensus.values():
        for edge in node.members if node.needs_errors else ():
            reason, instead = "", "another rule"
            if task.labels not in ("values", "classes") or task.rows != "samples":
                reason = f"answers of task {task.name} are neither values nor one class of each sample"
            elif edge.source in spec.agents and spec.agents[edge.source].labels is not None:
                reason = f"{edge.source} knows some classes alone"
            elif edge.source in consensus:
                reason = f"{edge.source} is a consensus, and errors are those of agents"
            elif edge.output:
                reason = f"{edge.source} sends something else than its answers"
                instead = "signal: logits, or another rule"
            elif edge.stale != "publish":
                reason = f"{edge.source} publishes nothing, and its errors are measured when it does"
                instead = "refresh: epoch, without `stale`, or another rule"
            if reason:
                what = f"rule {node.rule.name!r} weighs its sources by their errors on validation: {reason}"
                raise MeshError(what, where=edge.where, instead=instead)


def _of_test(spec: MeshSpec, name: str) -> str:
    """Where a stream names the test split for its prompts, or to be mixed in; "": nowhere."""
    stream = spec.streams.get(name)
    if stream is None:
        return ""
    if stream.prompts == "test":
        return f"streams.{name}.prompts"
    return f"streams.{name}.mix.of" if stream.mix is not None and stream.mix.of == "test" else ""


def _circle(spec: MeshSpec) -> None:
    """Every stream ends at a split."""
    graph = nx.DiGraph()
    for name, stream in spec.streams.items():
        read = stream.made_of.values()
        graph.add_edges_from((name, other) for other in (stream.prompts or stream.of, *(stream.rest_of or ()), *read))
    try:
        path = [name for name, _ in nx.find_cycle(graph, list(spec.streams))]
    except nx.NetworkXNoCycle:
        return
    first = next(name for name in spec.streams if name in path)
    path = path[path.index(first) :] + path[: path.index(first)]
    stream, after = spec.streams[first], [*path[1:], first]
    field, instead = "prompts" if stream.prompts else "of", f"one of {', '.join(spec.starts)}"
    first_made = (stream.prompts or stream.of) == after[0]
    field = field if first_made else "rest_of"
    for at, other in stream.made_of.items():
        if other == after[0] and not first_made:
            field, instead = at, "streams that are written before this one"
    raise MeshError(
        f"streams are derived from each other in a cycle: {' -> '.join([first, *after])}",
        where=f"streams.{first}.{field}",
        instead=instead,
    )


def _rests(spec: MeshSpec) -> None:
    """The rest of a stream is that of what this stream was taken from, and both are of one split."""
    for name, stream in spec.streams.items():
        for other in stream.rest_of or ():
            path = below(spec, other)
            if stream.of in path:
                continue
            if other in spec.starts:
                what, instead = f"{other} is a whole split", "streams that are taken from one"
            else:
                what = f"{other} is taken from {' and '.join(path)}, and not from {stream.of}"
                instead = f"of: {path[0]}"
            raise MeshError(f"{what}, so it has no rest there", where=f"streams.{name}.rest_of", instead=instead)


def taught(spec: MeshSpec, edges: list[Edge], found: WeightSets) -> None:
    """Every agent whose weights train has something to learn from."""
    reached = {found.of(edge.target) for edge in edges if edge.as_ == "target"}
    for edge in edges:
        owner = spec.agents.get(found.of(edge.target))
        if owner is not None and owner.update != "grad" and edge.as_ == "target":
            how = f"an average of {owner.ema.of}" if owner.ema is not None else str(owner.update)
            raise MeshError(
                f"{edge.target} is {how}, so nothing can teach it",
                where=edge.where,
                instead=f"let the flow end elsewhere, or give {edge.target} `update: grad`",
            )
    for name, agent in spec.agents.items():
        weight_set = found.of(name)
        if agent.weights_of is None and agent.update == "grad" and weight_set not in reached:
            raise MeshError(
                "nothing teaches this agent and no label trains it",
                where=f"agents.{name}",
                instead=f"add a flow to it, {{from: labels, to: {name}, objective: ce}}, or remove the agent",
            )


def followed(spec: MeshSpec, found: WeightSets) -> None:
    """Weights that follow others follow, in the end, some that are trained by gradient."""
    for name in spec.agents:
        chain = [name]
        while (ema := spec.agents[chain[-1]].ema) is not None:
            leader = found.of(ema.of)
            where = f"agents.{chain[-1]}.update.ema.of"
            if leader in chain:
                circle = " -> ".join([*chain[chain.index(leader) :], leader])
                raise MeshError(f"weights follow each other in a cycle: {circle}", where=where, instead=TRAINS)
            if leader not in found.trainable:
                raise MeshError(f"{chain[-1]} follows {leader}, which is frozen", where=where, instead=TRAINS)
            chain.append(leader)


def label_spaces(spec: MeshSpec, edges: list[Edge], consensus: dict[str, ConsensusNode]) -> None:
    """Both ends of a flow of outputs stand for the same classes, or its reader for more: then note which are shared."""
    if all(agent.labels is None for agent in spec.agents.values()):
        return
    space: dict[str, Classes] = {}
    for name, agent in spec.agents.items():
        space[name] = None if agent.labels is None else tuple(agent.labels)
        if agent.labels is not None and len(set(agent.labels)) < max(len(agent.labels), 1):
            raise MeshError(
                f"`labels` of {name} is empty, or names a class twice: {agent.labels}",
                where=f"agents.{name}.labels",
                instead="one class for each output, or leave `labels` out",
            )

    def settle(node: ConsensusNode) -> None:
        if node.name in space:
            return
        for edge in node.members:
            if edge.source in consensus:
                settle(consensus[edge.source])
        spaces = [space[edge.source] for edge in node.members]
        merged = {number for known in spaces for number in known or ()}
        if node.partial and len(set(spaces)) > 1:
            node.labels = None if None in spaces else tuple(sorted(merged))
        else:
            node.labels = spaces[0]
        space[node.name] = node.labels

    for node in consensus.values():
        settle(node)
    for edge in edges:
        if edge.source != LABELS and edge.form != "hidden":
            merges = edge.target not in consensus or consensus[edge.target].partial
            maps = merges and edge.as_ == "target" and edge.reads == "logits"
            if edge.as_ == "input" and edge.target in spec.agents:
                continue  # what it means is its reader's own business
            edge.classes = _shared(edge, space[edge.source], space[edge.target], maps)


def _shared(edge: Edge, source: Classes, target: Classes, maps: bool) -> Classes:
    """The reader's columns for the source's classes, None where both stand for the same in one order."""
    if source == target:
        return None
    columns = None if target is None else {number: column for column, number in enumerate(target)}

    def words(classes: Classes) -> str:
        return "all classes" if classes is None else f"classes {list(classes)}"

    if not maps or source is None or (columns is not None and not columns.keys() >= set(source)):
        raise MeshError(
            f"label spaces differ: {edge.source} knows {words(source)}, {edge.target} {words(target)}",
            where=edge.where,
            instead="connect agents with the same `labels`, or a source to a reader that knows more; into a consensus, "
            "a rule for sources that know different classes (concat, uhc)",
        )
    if "labels" in edge.needs and edge.objective is not None:
        raise MeshError(
            f"objective {edge.objective.name!r} needs labels of all classes that {edge.target} knows, and "
            f"{edge.source} knows only {words(source)}",
            where=f"{edge.where}.objective",
            instead="an objective without labels (kl ...)",
        )
    return source if columns is None else tuple(columns[number] for number in source)


def phases(stage: Stage, edges: list[Edge]) -> None:
    """Every phase that a flow into a stage names is one of its program's, and every phase has flows."""
    names = {line.phase for line in stage.program.trains()}
    for edge in edges:
        if edge.lesson is not None and edge.lesson not in names:
            raise MeshError(
                f"unknown lesson {edge.lesson!r}",
                where=f"{edge.where}.lesson",
                instead=nearest(edge.lesson, names, "lessons of this stage's program"),
            )
    for key, phase in stage.phases.items():
        if not phase.edges:
            raise MeshError(
                f"no flow is active in lesson {key!r} of the stage of {stage.name!r}",
                where="program",
                instead=f"add `lesson: {phase.name}` to a flow that ends in this stage, or remove the line",
            )


def batch_sizes(plan: Plan) -> None:
    """Agents that train together step together: one batch size and one way to end an epoch."""
    for stage in plan.stages:
        first: tuple[str, tuple[int, bool]] | None = None
        for agent in stage.agents if len(stage.weights) > 1 else ():
            train = plan.train(agent)
            own = (train.batch_size, train.drop_last)
            if first is None:
                first = (agent, own)
            elif own != first[1]:
                raise MeshError(
                    f"{first[0]} and {agent} train together but differ in batch_size or drop_last: {first[1]}, {own}",
                    where=f"agents.{agent}.train.batch_size",
                    instead="give them the same, or leave it to `train.batch_size`",
                )
