"""Build the parts of a host: weights, agents, objectives, views, signals and the rules of consensus nodes."""

from __future__ import annotations

import inspect
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from kdmesh.errors import FAULTS, MeshError, RunFailed, line_of, stopped, text_of
from kdmesh.graph import reach
from kdmesh.graph.views import of_samples
from kdmesh.hosts import asking, endpoints, guard, making, parameters, releasing, side_inputs
from kdmesh.hosts.agent import Agent
from kdmesh.hosts.consensus import Consensus, numbers, refuse_made
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.modules import build
from kdmesh.hosts.unbuilt_weights import unbuilt
from kdmesh.hosts.unread_weights import UnreadWeights, may_wait
from kdmesh.hosts.weights import Weights
from kdmesh.signals import codecs
from kdmesh.signals.lazy import Lazy, dense
from kdmesh.streams.seeds import mix
from kdmesh.streams.views import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.state import HostState
    from kdmesh.offers import SignalOffer
    from kdmesh.plugins import Registry
    from kdmesh.streams.prepared import Prepared


def weights(host: HostState, owner: str) -> Weights:
    """A set of weights, as it begins: seeded, read from a file, or like those that it starts like."""
    spec, settings = host.plan.spec.agents[owner], host.plan.train(owner)
    if (unread := _unread(host, owner)) is not None:
        return unread
    module = build(host.plan, owner, host.reading, host.registry, host.config.modules, settings.device)
    if (served := endpoints.weights(host, owner, module)) is not None:
        return served
    weights = LocalWeights(owner, module, settings, spec.ema)
    if not spec.learns:
        module.requires_grad_(False)
    module.eval()
    return weights


def _unread(host: HostState, owner: str) -> Weights | None:
    """Frozen weights that may stay in their file, since the store may have all that their agents say; else None."""
    spec, settings = host.plan.spec.agents[owner], host.plan.train(owner)
    if spec.prune or spec.quantize:
        return None  # what it computes with is not what its file has
    there = spec.weights is not None and spec.update == "frozen" and owner not in host.config.modules
    if host.reading.texts:
        return unbuilt(host, owner)
    if host.shelf is None or spec.weights is None or not there or host.config.writers:
        return None  # a writer is given its agent, and may ask the module itself
    module = build(host.plan, owner, host.reading, host.registry, host.config.modules, "meta").eval()
    return UnreadWeights(owner, module, settings, spec.weights, f"agents.{owner}.weights") if may_wait(module) else None


def old_weights(host: HostState, owner: str) -> Weights:
    """A set of weights like an owner's that does not change, to take old ones."""
    settings = host.plan.train(owner)
    module = build(host.plan, owner, host.reading, host.registry, host.config.modules, settings.device)
    return LocalWeights(owner, module.eval().requires_grad_(False), settings)


def agent(host: HostState, name: str, weights: Weights) -> Agent:
    """An agent that views a set of weights."""
    spec = host.plan.spec.agents[name]
    seen = None
    mixes = host.plan.mixed.get(name)
    if single := of_samples(spec.view, mixes):
        seen = View([view(host, name, number) for number in range(single)], spec.view.draws)
    mixing = None if mixes is None else view(host, name, single)
    makes = {
        edge.output: maker(host, edge, name, weights.module)
        for edge in host.plan.edges
        if edge.derived is not None
        and not edge.asked
        and (edge.source == name or (edge.mirrored and edge.target == name))
    }
    makes |= asking.questions(host, name, columns)
    return Agent(name, weights, seen, spec.taps, makes, spec.exit, outputs(host, name), mixing)


def attribute_error(host: HostState, agent: str, error: BaseException, when: str) -> NoReturn:
    """Raise, with whose model it is, what a forward of an agent raised; MeshError, and what a disk says, as it is."""
    if isinstance(error, MeshError) or stopped(error) or (isinstance(error, OSError) and not line_of(error)):
        raise error
    spec, doing = host.plan.spec.agents[host.plan.owner[agent]], f"to answer {when}"
    where = f"agents.{agent}.model"
    if spec.model is not None and not spec.model.is_import and agent not in host.config.modules:
        host.registry.attribute_error("models", spec.model.name, error, doing, where)
    raise RunFailed(
        f"the model of {agent} failed {doing}: {text_of(error)}{line_of(error)}",
        where=where,
        instead="a model that answers every batch alike",
    ) from error


def trained_rules(host: HostState) -> dict[str, Weights]:
    """A trained rule is a set of weights like any other; its readers' settings train it."""
    found: dict[str, Weights] = {}
    for name, consensus in host.consensus.items():
        if consensus.node.trained:
            if not any(parameter.requires_grad for parameter in consensus.rule.parameters()):
                none = ValueError("it is to be trained, and it has no weights that require a gradient")
                rule = consensus.node.rule.name
                host.registry.attribute_error("consensus", rule, none, "to be set up", f"consensus.{name}")
            settings = host.plan.train(consensus.node.readers[0].target)
            found[name] = LocalWeights(name, consensus.rule.to(settings.device), settings)
    return found


def objective(host: HostState, edge: Edge) -> Any:
    """Build a flow's loss with its adapters, seeded by the flow's ends."""
    assert edge.objective is not None
    _refuse_labels(host, edge)
    offer = host.registry.find("objectives", edge.objective.name)
    seed, ours = mix(host.seed, "objective", edge.source, edge.target, edge.id), offer.factory.startswith(guard.OURS)
    try:
        with guard.seeded(seed, ours=ours):
            objective = offer.make(edge.objective.config)
        parameters.of_objective(host.registry, offer, objective, edge)
        with guard.seeded(seed, ours=ours):
            objective.setup(
                *_shapes(host, edge), **side_inputs.of_stream(host, edge, getattr(objective, "asks_labels", False))
            )
        return objective.to(host.plan.train(edge.target).device)
    except MeshError as error:
        error.where = error.where or edge.where
        raise
    except FAULTS as error:
        if isinstance(error, ValueError) and edge.reads == "hidden" and edge.tap is not None:
            raise MeshError(str(error), where=f"{edge.where}.tap", instead="taps of layers that fit") from None
        host.registry.attribute_error("objectives", offer.name, error, f"to be set up on the flow {edge}", edge.where)


def view(host: HostState, agent: str, number: int) -> Any:
    """One of an agent's augmentations; one that is not ours gets a copy, generators of its own, and is checked."""
    own, where = host.plan.spec.agents[agent].view, f"agents.{agent}.view.augment.{number}"
    ref = own.augment[number]
    offer = host.registry.find("views", ref.name)
    seed = mix(host.seed, "view", own.of or agent, number)
    if offer.mixes and host.reading.texts:
        what = f"{ref.name} mixes numbers, and the data are texts"
        raise MeshError(what, where=where, instead="leave it out")
    if offer.mixes:  # a batch's, not an agent's
        seed = mix(host.seed, "mix", agent) if own.apart else mix(host.seed, "mix")
    try:
        with guard.alone():
            augment = offer.make(ref.config, seed)
            call, strict = host.timed("views", ref.name, augment), host.config.strict
    except FAULTS as error:
        host.registry.attribute_error("views", ref.name, error, f"to be made for {agent}", where)
    if getattr(augment, "of_pixels", False) and (made := _scaled(host, agent)) is not None:
        call = _before_scaling(call, made)
    if offer.factory.startswith(guard.OURS):
        return call

    calls = count()

    def guarded(x: Tensor, ids: Tensor, draw: int) -> Any:
        given, call_number = x.clone(), next(calls)
        try:
            with guard.seeded(mix(seed, draw), strict=strict):
                value = call(given, ids, draw)
            if offer.mixes:
                value = guard.mixed(value, x)
            # Later a loss that is not finite names it (blame.py).
            seen = value.x if offer.mixes else value
            guard.refuse_view(seen, x, call_number < guard.LOOK or call_number % guard.LOOK == 0)
            guard.refuse_changed(given, x, strict)
        except FAULTS as error:
            doing = f"to augment samples of {agent}{_at_step(host)}"
            host.registry.attribute_error("views", ref.name, error, doing, where)
        return value

    return guarded


def _scaled(host: HostState, agent: str) -> Prepared | None:
    """How the pixels of an agent's images are scaled, if they are."""
    made = None if host.reading.texts else host.reading.prepared(agent)
    return made if made is not None and len(made.shape) > 1 else None


def _before_scaling(call: Any, made: Prepared) -> Any:
    """An augmentation that reads pixels as the data have them, of images that were scaled: it comes before that."""

    def moved(x: Tensor, ids: Tensor, draw: int) -> Tensor:
        return made.of_pixels(call(made.pixels(x), ids, draw)).to(x)

    return moved


def _at_step(host: HostState) -> str:
    """When something is asked of an agent, for an error; "" outside steps."""
    return "" if host.step is None else f" at step {host.step}"


def codecs_of(plan: Plan, registry: Registry) -> None:
    """Put the codecs of the plan's signals into the table: whoever reads a signal restores it, wherever it lives."""
    for edge in plan.edges:
        if edge.derived is not None and (offer := registry.find("signals", edge.derived.name)).codec:
            try:
                codecs.add(offer.codec, f"{edge.where}.signal")
            except MeshError:
                raise
            except FAULTS as error:
                registry.attribute_error(
                    "signals", offer.name, error, f"to import its codec {offer.codec}", f"{edge.where}.signal"
                )


def maker(host: HostState, edge: Edge, agent: str, module: nn.Module) -> making.Maker:
    """What makes the signal of a flow at one of its ends; one that is not ours is guarded as views are.

    Its draws are of a step, in train mode. In eval mode it may not draw: an answer there belongs to its sample, in
    whatever batch that is, and draws belong to a place in a batch.
    """
    assert edge.derived is not None
    offer, strict = host.registry.find("signals", edge.derived.name), host.config.strict
    try:
        with guard.alone():
            made = offer.make(edge.derived.config)
    except FAULTS as error:
        host.registry.attribute_error("signals", offer.name, error, f"to be made for {edge}", edge.where)
    parameters.of_signal(host.registry, offer, made, f"{edge.where}.signal")
    make = host.timed("signals", offer.name, made)
    shape, learns = host.config.shapes.get((agent, edge.output)), agent == edge.target or not edge.detach
    kind: torch.dtype | None = None
    if not offer.aligned:
        return _statistic(host, edge, offer, make)
    ours, seen, taps = offer.factory.startswith(guard.OURS), False, host.plan.spec.agents[agent].taps

    def call(value: Tensor | Lazy, x: Any, layers: Mapping[str, Tensor]) -> Tensor | Lazy:
        nonlocal seen, kind
        value = value if offer.lazy else dense(value)
        try:
            if ours:
                result: Tensor | Lazy = make(value)
                return result
            given = value.clone() if isinstance(value, Tensor) else value
            still = not module.training
            if still and "generator" in offer.needs:
                raise ValueError(f"it draws for each batch, and {agent} answers in eval mode (`mode: train`)")
            seed = mix(host.seed, "signal", agent, edge.output, 0 if still else torch.initial_seed())
            with guard.seeded(seed, strict=strict or (still and "module" not in offer.needs)):  # it may draw itself
                beside = {name: layers[path] for name, path in taps.items()} if "taps" in offer.needs else {}
                result = making.made(offer, make, given, x, module, beside, seed, first=not seen)
            guard.refuse_signal(result, value, shape, offer.form)
            guard.refuse_changed(given, value, strict)
            if isinstance(value, Tensor) and (not seen or (host.step or 0) % guard.LOOK == 0):
                refuse_made(result, offer.form, numbers(value))
            if kind not in (None, result.dtype):
                raise ValueError(f"it gave {guard.told(result)}, and {kind} before")
            kind = result.dtype
            if learns and value.requires_grad and torch.is_grad_enabled() and not result.requires_grad:
                raise ValueError("it gave something without gradient, and one is to pass through it")
            if not seen:
                guard.refuse_codec(result)
                seen = True
        except FAULTS as error:
            doing = f"on the flow {edge}" if agent == edge.source else f"of {agent}'s own, on the flow {edge}"
            host.registry.attribute_error("signals", offer.name, error, f"{doing}{_at_step(host)}", edge.where)
        return result

    layer = edge.tap.of if offer.reads == "hidden" and edge.tap is not None else ""
    return making.Maker(call, layer, tuple(taps) if "taps" in offer.needs else ())


def _statistic(host: HostState, edge: Edge, offer: SignalOffer, make: Any) -> making.Maker:
    """What makes a signal whose rows are of no samples, of a whole stream."""
    shape = host.config.statistics.get((edge.source, edge.output))
    seed, classes = mix(host.seed, "signal", edge.source, edge.output), host.plan.answers.outputs(host.table)

    def whole(values: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        try:
            with guard.seeded(seed, strict=host.config.strict):
                value, known = making.statistic(offer, make, values, labels, classes)
            if shape is not None and value.shape != shape:
                raise ValueError(f"it gave {guard.told(value)}, and {list(shape)} of other samples")
        except FAULTS as error:
            host.registry.attribute_error("signals", offer.name, error, f"on the flow {edge}", edge.where)
        return value, known

    def call(value: Any, x: Any, layers: Any) -> Tensor | Lazy:
        raise AssertionError(f"{offer.name} is made of a whole stream")

    layer = edge.tap.of if offer.reads == "hidden" and edge.tap is not None else ""
    return making.Maker(call, layer, whole=whole)


def _refuse_labels(host: HostState, edge: Edge) -> None:
    """Labels are given to an objective as they are, which an agent of some classes has no columns for."""
    known = host.plan.spec.agents[edge.target].labels
    if known is not None and "labels" in edge.needs and edge.objective is not None:
        raise MeshError(
            f"objective {edge.objective.name!r} needs labels of all classes, and {edge.target} knows only {known}",
            where=f"{edge.where}.objective",
            instead="an objective without labels (kl ...)",
        )


def _shapes(host: HostState, edge: Edge) -> tuple[torch.Size, torch.Size]:
    """The shapes, without the batch axis, of what an objective compares."""
    known = outputs(host, edge.target) if edge.classes is None else torch.Size([len(edge.classes)])
    own = known
    if edge.mirrored:
        own = host.config.shapes[edge.target, edge.output]
    elif edge.reads == "hidden" and edge.tap is not None:
        own = host.config.shapes[edge.target, edge.tap.to]
    if edge.unaligned and edge.source in host.plan.consensus:
        return own, sent(host, host.plan.consensus[edge.source].members[0])
    if edge.source in host.plan.owner:
        return own, sent(host, edge)
    if "spans" in edge.needs and edge.source in host.plan.consensus:
        return own, torch.Size([_width(host, host.plan.consensus[edge.source])])
    return own, torch.Size([]) if edge.form == "labels" else known


def sent(host: HostState, edge: Edge) -> torch.Size:
    """The shape, without the batch axis, of what an agent sends on an edge."""
    return host.config.shapes[edge.source, edge.output] if edge.output else outputs(host, edge.source)


def outputs(host: HostState, agent: str) -> torch.Size:
    """The shape of an agent's logits without the batch axis."""
    labels = host.plan.spec.agents[agent].labels
    if (agent, "") in host.config.shapes:
        return host.config.shapes[agent, ""]
    return torch.Size([host.plan.answers.outputs(host.table) if labels is None else len(labels)])


def columns(host: HostState, edge: Edge) -> int | Tensor | None:
    """Which of the reader's columns a flow compares: the first so many, these, or (None) all."""
    device = host.plan.train(edge.target).device
    if edge.classes is not None:
        return torch.tensor(edge.classes, device=device)
    sources = (
        reach.sources(edge, host.plan.consensus)
        if host.plan.task.outputs == "vocabulary" and "spans" not in edge.needs
        else []
    )
    sizes = {outputs(host, agent)[0] for agent in (*sources, edge.target)}
    return min(sizes) if len(sizes) > 1 and edge.form != "hidden" else None


def consensus(host: HostState) -> dict[str, Consensus]:
    """The consensus nodes that a host reads or judges, and those that these read."""
    found: dict[str, Consensus] = {}

    def add(node: ConsensusNode) -> Consensus:
        if node.name not in found:
            consensus = found[node.name] = _rule(host, node)
            inner = [host.plan.consensus.get(edge.source) for edge in node.members]
            consensus.nested = [add(other) for other in inner if other is not None]
        return found[node.name]

    for node in host.plan.consensus.values():
        read = any(edge.target in host.agents for edge in node.readers) and not host.plan.away(node.name, host.name)
        if read or host.plan.evaluator(node.name) == host.name:
            add(node)
    return found


def _rule(host: HostState, node: ConsensusNode) -> Consensus:
    """One node's rule, set up for its members, seeded by its name."""
    with guard.seeded(mix(host.seed, "consensus", node.name)):
        config, where = host.registry.check("consensus", node.rule.name, node.rule.config), f"consensus.{node.name}"
        try:
            with guard.alone():
                consensus = Consensus(node, config.model_dump(), host.config.strict)
        except FAULTS as error:
            host.registry.attribute_error("consensus", node.rule.name, error, "to be made", where)
        _refuse_target(host, node, consensus)
        parameters.of_rule(host.registry, host.registry.find("consensus", node.rule.name), node, consensus.rule)
        if host.profile is not None:
            consensus.timed = partial(host.profile.timed, "consensus", node.rule.name)
        if node.releases:
            consensus.release = partial(releasing.release, host, node)
        return _set_up(host, node, consensus)


def _refuse_target(host: HostState, node: ConsensusNode, consensus: Consensus) -> None:
    """`per_target` is for rules that take the reader's name, and for all of them that cannot do without."""
    known = inspect.signature(consensus.rule.forward).parameters
    where, rule = host.plan.at(f"consensus.{node.name}.per_target"), f"rule {node.rule.name!r}"
    takes = "target" in known or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())
    if node.per_target and not takes:
        raise MeshError(f"{rule} gives all its readers one signal", where=where, instead="leave it out")
    if not node.per_target and "target" in known and known["target"].default is inspect.Parameter.empty:
        raise MeshError(f"{rule} gives each reader a signal of its own", where=where, instead="per_target: true")


def _set_up(host: HostState, node: ConsensusNode, consensus: Consensus) -> Consensus:
    """Tell a rule of its members."""
    where = f"consensus.{node.name}"
    consensus.width = host.plan.answers.outputs(host.table) if node.labels is None else len(node.labels)
    if host.plan.task.outputs == "vocabulary":
        consensus.width = _width(host, node)
        consensus.prefix = True
    if node.unaligned:
        consensus.width = sent(host, node.members[0])[0]
    more = {"columns": side_inputs.columns(host, node)} if node.column else {}
    given = consensus.shapes = tuple(sent(host, edge) for edge in node.given)
    try:
        with guard.alone():
            consensus.rule.setup(tuple(edge.source for edge in node.members), consensus.width, given, **more)
    except MeshError as error:
        error.where = f"consensus.{node.name}.rule.{node.rule.name}" + (f".{error.where}" if error.where else "")
        raise
    except FAULTS as error:
        host.registry.attribute_error("consensus", node.rule.name, error, "to be set up", where)
    return consensus


def _width(host: HostState, node: ConsensusNode) -> int:
    """How many columns a consensus of language models has: as many as all have that are compared in it."""
    return min(outputs(host, agent)[0] for agent in _around(host, node))


def _around(host: HostState, node: ConsensusNode) -> list[str]:
    """The agents whose outputs a consensus combines, and those that read it column by column."""
    sources = [name for member in node.members for name in reach.sources(member, host.plan.consensus)]
    readers = [edge.target for edge in node.readers if "spans" not in edge.needs]
    nodes = [host.plan.consensus[name] for name in readers if name in host.plan.consensus]
    return [*sources, *(n for n in readers if n in host.plan.owner), *(a for n in nodes for a in _around(host, n))]


def taps(host: HostState, edges: list[Edge]) -> dict[tuple[str, str], tuple[str, ...]]:
    """What, beside logits, each (agent, stream) forward must give: layers, and signals that are made."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for edge in edges:
        if edge.mirrored:
            found.setdefault((edge.target, edge.stream), {})[edge.output] = None
        elif edge.reads == "hidden" and edge.tap is not None:
            found.setdefault((edge.target, edge.stream), {})[edge.tap.to] = None
        if edge.asked:
            found.setdefault((edge.target, edge.stream), {})[edge.question] = None
    for edge in (*edges, *(edge for node in host.plan.consensus.values() for edge in node.inputs)):
        if edge.forwarded and edge.source in host.plan.owner and not edge.unaligned:
            found.setdefault((edge.source, edge.stream), {})[edge.output] = None
    return {key: tuple(names) for key, names in found.items()}
