"""Measure agents and consensus nodes on one host: numbers go to the driver, never tensors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch

from kdmesh.errors import FAULTS
from kdmesh.graph.edges import flow_names
from kdmesh.graph.reach import speaker
from kdmesh.hosts import (
    answered,
    build,
    gates,
    guard,
    kept,
    metrics,
    oddities,
    paired,
    rules,
    side_inputs,
    spoken,
    stored,
)
from kdmesh.hosts.consensus import sharpened
from kdmesh.hosts.looked_up import asks, lacking
from kdmesh.hosts.packing import unpack
from kdmesh.hosts.seen import seen
from kdmesh.offers import PROBABILITIES
from kdmesh.signals import Signal
from kdmesh.signals.lazy import dense, taken
from kdmesh.signals.wide import widened
from kdmesh.store.key import MEASURED
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdmesh.contracts.metric import Metric
    from kdmesh.contracts.task import Chance
    from kdmesh.graph.edges import Edge
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.consensus import Consensus
    from kdmesh.hosts.loader import ShardView
    from kdmesh.hosts.packing import Published
    from kdmesh.hosts.state import HostState
    from kdmesh.signals.lazy import Lazy


class ConsensusFigures(TypedDict):
    """What is measured of a consensus on a stream.

    ``quality``: figures by metric, empty without labels or a signal; ``oracle``: whether the rule was given the true
    labels, so that its quality is a bound and not a result; ``agreement`` and ``churn`` (None the first time): of its
    sources' decisions, where they decide; ``answered``: where it may abstain, and then the quality is of those rows.
    """

    quality: dict[str, Any]
    oracle: bool
    answered: NotRequired[answered.Coverage]
    agreement: NotRequired[float]
    churn: NotRequired[float | None]


def evaluate(host: HostState, one: Agent, stream: str, given: Sequence[Published] = ()) -> dict[str, Any]:
    """Forward an agent on a whole stream, and compare with its labels; nothing where there are none.

    Figures by metric: numbers, and of metrics that are no single number lists. ``given``: what it sees in the place of
    samples, where it has an input.
    """
    if one.name in host.plan.language_models:
        return {}  # its tokens are no answers of the mesh's task
    shard = host.loader.shard(stream, one.name, one.device)
    truth = shard.truth
    if truth is None or not len(shard):
        return {}
    if not len(truth):  # prompts alone
        return _watched(host, one, stream, spoken.measure(host, one, stream))
    host.threads(one.weights.settings.threads)
    before = one.forwards
    x = seen(host, one, stream, given)
    if (unknown := lacking(host, one, shard.x)) is not None and bool(unknown.any()):
        return {}  # the check has said so
    try:
        known = stored.answers(host, one, shard, (), MEASURED) if x is None and stored.still(host, one) else None
        logits, _ = known or one.inference(shard.x if x is None else x, MEASURED)
    except FAULTS as error:
        build.attribute_error(host, one.name, error, f"the stream {stream!r}")
    one.forwards = before  # measuring is not teaching
    oddities.softened(host, one.name, logits)
    classes = host.plan.spec.agents[one.name].labels
    answered.keep(host, one.name, logits, truth, shard, classes)
    figures = _figures(host, logits, truth, shard, classes, of=one.name)
    more = [figures, spoken.measure(host, one, stream), paired.measure(host, one, stream)]
    reasons = {name: why for part in more for name, why in part.get(metrics.UNDEFINED, {}).items()}
    for part in more[1:]:
        figures |= part
    figures |= {metrics.UNDEFINED: reasons} if reasons else {}
    return _watched(host, one, stream, figures)


def _watched(host: HostState, one: Agent, stream: str, figures: dict[str, Any]) -> dict[str, Any]:
    """The figures, of which gates on this host are told those of validation."""
    if stream == "validation" and one.name in host.watched:
        host.figures[one.name] = metrics.scalars(figures)
    return figures


@torch.no_grad()
def squared_errors(host: HostState, one: Agent) -> Tensor:
    """An agent's mean squared error on validation, by value, or of probabilities by class, ``[T]`` float64; what a rule
    may be given.
    """
    shard = host.loader.shard("validation", one.name, one.device)
    assert shard.truth is not None  # the check saw to it
    before = one.forwards
    size = host.forward_size(one.name)
    try:
        known = stored.answers(host, one, shard, (), size) if stored.still(host, one) else None
        answers, _ = known or one.inference(shard.x, size)
    except FAULTS as error:
        build.attribute_error(host, one.name, error, "the stream 'validation'")
    one.forwards = before  # measuring is not teaching
    said, truth = widened(dense(answers)), shard.truth
    if host.plan.task.labels == "classes":
        said, truth = said.softmax(-1), torch.nn.functional.one_hot(truth, said.shape[-1])
    return (said - widened(truth)).square().mean(0)


def _figures(
    host: HostState,
    answers: Tensor | Lazy,
    truth: Tensor,
    shard: ShardView,
    classes: Sequence[int] | None,
    probs: bool = False,
    rows: Tensor | None = None,
    of: str = "",
) -> dict[str, Any]:
    """What the mesh's metrics say of answers on a shard; ``rows [N]`` bool: of these alone, nothing of none.

    ``of``: whose answers they are, for an error.
    """
    asked = {ref.by for ref in host.plan.metrics if ref.by}
    by = {name: side_inputs.numbers(host, name, shard).to(truth.device) for name in asked}
    characters = shard.characters
    if rows is not None:
        at = rows.nonzero()[:, 0]
        if not len(at):
            return {}
        answers, truth = taken(answers, at), truth[at]
        characters = None if characters is None else characters[at]
        by = {name: numbers[at] for name, numbers in by.items()}
    names = {ref.key: ref.name for ref in host.plan.metrics}

    when = f" after {host.agents[of].weights.updates} updates" if of in host.agents else ""

    def on_error(key: str, error: BaseException) -> None:
        host.registry.attribute_error("metrics", names[key], error, f"on {shard.stream.name} of {of}{when}", "metrics")

    def make(name: str, settings: dict[str, Any]) -> Metric:
        try:
            made: Metric = host.registry.find("metrics", name).make(settings)
            return made
        except FAULTS as error:
            host.registry.attribute_error("metrics", name, error, "to be made", "metrics")

    single = {ref.key for ref in host.plan.metrics if host.registry.find("metrics", ref.name).scalar and not ref.by}
    return metrics.measure(
        metrics.made(host.plan, host.registry, characters is not None, host.values, make),
        answers,
        truth,
        probs=probs,
        characters=characters,
        classes=classes,
        total=host.plan.answers.outputs(host.table) if host.plan.task.outputs == "labels" else None,
        columns=by,
        on_error=on_error,
        single=single,
    )


def evaluate_consensus(
    host: HostState, name: str, stream: str, among: list[str], published: tuple[Published, ...]
) -> ConsensusFigures:
    """Measure the full consensus (include_self does not matter here) on a stream. A rule that needs labels is given
    the true ones.
    """
    consensus = host.consensus[name]
    device = host.device
    sent, errors = arrived(host, published)
    shard = host.loader.shard(stream, owner(host, consensus.node.members[0].source, stream), device)
    truth = shard.truth
    found: ConsensusFigures = {"quality": {}, "oracle": consensus.node.needs_labels}
    signal = combined(host, name, sent, errors, truth, shard)
    if signal is not None and truth is not None and len(truth):
        answers: Tensor | Lazy = signal.value
        probs, softened = signal.form in PROBABILITIES, consensus.node.temperature
        if probs and softened != 1:  # at T = 1, as its sources' figures are: the same answers, comparable numbers
            answers, probs = sharpened(answers, softened, signal.form), False
        classes, rows = consensus.node.labels, _answered(consensus, signal)
        answered.keep(host, name, answers, truth, shard, classes, probs, rows)
        found["quality"] = _figures(host, answers, truth, shard, classes, probs, rows, name)
        if rows is not None:
            found["answered"] = answered.coverage(host, answers, truth, classes, probs, rows)
    outputs = {edge.source: sent.get((edge.source, edge.output)) for edge in consensus.node.members}
    agents = host.plan.spec.agents
    decided = {
        source: metrics.predictions(value, host.plan.answers.decide, agents[source].labels)
        for source in among
        if host.plan.task.decides and (value := outputs.get(source)) is not None
    }
    known = {f"{name}:{stream}:{source}": one for source, one in decided.items() if one is not None}
    if known:
        again = [memory for memory in known if memory in host.predictions]  # who has spoken before
        before = torch.stack([host.predictions[memory] for memory in again]) if again else None
        found["agreement"] = metrics.agreement(torch.stack([*known.values()]))
        found["churn"] = metrics.churn(torch.stack([known[memory] for memory in again or known]), before)
        host.predictions.update(known)
    return found


def arrived(
    host: HostState, published: Sequence[Published]
) -> tuple[dict[tuple[str, str], Tensor | Lazy], dict[str, Tensor]]:
    """What agents sent, by agent and what, and their errors on validation by agent, where they sent these."""
    sent: dict[tuple[str, str], Tensor | Lazy] = {}
    errors: dict[str, Tensor] = {}
    for part in published:
        there = {key: kept.fetch(host.shelf, packed) for key, packed in part.items() if kept.is_kept(packed)}
        for key, one in there.items():
            sent[key.source, key.output] = one.values.to(host.device)
            errors |= {} if one.errors is None else {key.source: one.errors}
        rest = {key: packed for key, packed in part.items() if key not in there}
        for key, (value, more) in unpack(rest, host.device).items():
            sent[key.source, key.output] = value
            errors |= {key.source: more["errors"]} if "errors" in more else {}
    return sent, errors


def _answered(consensus: Consensus, signal: Signal) -> Tensor | None:
    """Which rows ``[N]`` a consensus answered; None for one that always does."""
    if not consensus.abstains:
        return None
    if signal.weights is None:
        return torch.ones(len(signal.value), dtype=torch.bool, device=signal.value.device)
    return signal.weights != 0


def combined(
    host: HostState,
    name: str,
    sent: dict[tuple[str, str], Tensor | Lazy],
    errors: dict[str, Tensor],
    truth: Tensor | None,
    shard: ShardView,
) -> Signal | None:
    """A consensus of what agents ``sent``, by agent and what; ``errors``: theirs on validation, where known."""
    consensus = host.consensus[name]
    if (
        consensus.node.space == "gradient"
        or consensus.node.per_target
        or (consensus.node.needs_labels and truth is None)
    ):
        return None  # no single signal: it differs by target, or cannot be formed here

    def fetch(edge: Edge) -> Signal | None:
        if edge.source in host.consensus:
            return combined(host, edge.source, sent, errors, truth, shard)
        value = sent.get((edge.source, edge.output))
        return None if value is None else Signal(value, edge.form)

    try:
        with torch.no_grad(), guard.seeded(mix(host.seed, "evaluate_consensus", name, shard.stream.name)):
            now = rules.last_asked(host, consensus.node)
            given = rules.facts(host, consensus.node, shard, truth, errors, now=now)
            return consensus.eval_copy().combine(None, fetch, given)
    except FAULTS as error:
        rules.attribute_error(host, name, error, "for its measurement")


def owner(host: HostState, source: str, stream: str) -> str:
    """The agent whose shard view has the rows that the members of a consensus answer: one that reads as they do."""
    shards = host.streams[stream].shards
    if shards is not None:
        return next(name for name in shards if name in host.agents)
    return speaker(source, host.plan.consensus)


def describe(host: HostState, agent: Agent) -> dict[str, Any]:
    """Size, identity and speed of an agent as it stands."""
    return {
        "parameters": agent.weights.size(),
        "weights_sha256": agent.weights.sha256(),
        "latency_ms": None if agent.weights.unread or asks(agent) else latency(host, agent),
        "forwards": sum(made.get(agent.name, 0) for made in host.made.values()),
        "updates": agent.weights.updates,
        "moved": agent.weights.moved,
        "left_out": agent.weights.left_out,
        "reports": reports(host, agent),
        "gates": gates.told(host, agent.name),
        "softened": oddities.softened(host, agent.name, None),
        "put_back": agent.buffers.moved,
        "chance": chance(host, agent),
    }


def chance(host: HostState, agent: Agent) -> Chance | None:
    """What the best constant answer reaches on what is asked of an agent on test; None where nothing is."""
    if "test" not in host.streams or agent.name in host.plan.language_models:
        return None
    truth = host.loader.shard("test", agent.name, agent.device).truth
    return None if truth is None or not len(truth) else host.plan.answers.chance(truth)


def reports(host: HostState, agent: Agent) -> dict[str, dict[str, float]]:
    """What objectives say of themselves, by the flow into an agent: how much of it they compared, say."""
    found = {}
    edges = [edge for edge in host.plan.edges if edge.target == agent.name and edge.objective is not None]
    names = flow_names(edges)
    for edge in edges:
        if edge.id in host.objectives and (figures := _report(host, edge)):
            found[names[edge.id]] = figures
    return found


def _report(host: HostState, edge: Edge) -> dict[str, float]:
    """What a flow's objective says of itself."""
    assert edge.objective is not None
    try:
        return guard.report(host.objectives[edge.id])
    except FAULTS as error:
        host.registry.attribute_error(
            "objectives", edge.objective.name, error, f"to report on the flow {edge}", edge.where
        )


@torch.no_grad()
def latency(host: HostState, agent: Agent, runs: int = 15) -> float:
    """Median milliseconds to answer one sample."""
    x = host.loader.one(agent.name, agent.device)
    host.threads(agent.weights.settings.threads)
    was = agent.module.training
    agent.weights.train(False)
    times = []
    agent.buffers.note()
    for _ in range(runs):
        start = time.perf_counter()
        agent.module(x)
        if agent.device.type == "cuda":
            torch.cuda.synchronize(agent.device)
        times.append(time.perf_counter() - start)
    if agent.buffers.changed():
        agent.buffers.put_back()
    agent.weights.train(was)
    return round(sorted(times)[len(times) // 2] * 1000, 4)
