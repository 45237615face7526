"""Updates of an agent that trains privately: one clipped gradient for each of its samples, and noise on their sum.

What it learns of streams that are not private is added as it is. What its losses on private samples were is told to
nobody, nor is it refused where they are no numbers: both would tell of samples. A sample's loss is what the objective
makes of that sample alone, whatever it would make of several; two objectives on a private stream have one gradient, of
their sum.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.errors import FAULTS, MeshError
from kdmesh.hosts import build
from kdmesh.hosts.agent import reseed
from kdmesh.hosts.per_sample import PerSample, refuse_layers, refuse_meeting, refuse_unproved
from kdmesh.hosts.standing import StandIn
from kdmesh.hosts.terms import Term
from kdmesh.signals.lazy import dense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from kdmesh.graph.steps import Op
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.drawn import Drawn
    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.preprocessing import Preprocessor
    from kdmesh.hosts.state import HostState
    from kdmesh.hosts.step import StepContext
    from kdmesh.streams.stream import Stream

PROVED = 3  # random samples of which gradients are compared
ALIKE = 1e-4  # how far a mean over samples alone may be from the loss of all


class Noised:
    """What an agent learns of its private samples in one phase.

    Attributes:
        view: its samples as the agent draws them.
    """

    def __init__(self, inputs: Inputs, agent: str, view: Drawn) -> None:
        self.inputs, self.host, self.view = inputs, inputs.host, view
        self.agent: Agent = self.host.agents[agent]
        self.mechanism, self.steps, self.where = view.mechanism, view.steps, view.where
        self.last = inputs.position(inputs.ends[self.host.plan.owner[agent]] - 1, view)
        for edge in inputs.plan.edges:
            if edge.target == agent and edge.stream == view.stream.name:
                _refuse_objective(self.host, edge)

    @property
    def hooks(self) -> PerSample | None:
        """What makes gradients by sample, proved for this model; None of a stand-in."""
        return hooks_of(self.host, self.agent)

    @contextmanager
    def forwarding(self, step: int, rows: int) -> Iterator[None]:
        """A forward within is of the step's samples: what it draws is nobody else's to know, as whose they are is."""
        reseed(self.steps.seed(self.where, self.inputs.position(step, self.view)), self.agent.device)
        hooks = self.hooks
        if hooks is None:
            yield
        else:
            with hooks.noting(rows):
                yield

    def gradient(self, context: StepContext, terms: list[Term], parameters: list[Any]) -> list[Tensor]:
        """Of each parameter, the released gradient: a sum with noise over how many samples are expected in it."""
        batch = self.inputs.batch(context, self.view)
        found = [torch.zeros(0, parameter.numel()) for parameter in parameters]
        if batch is not None:
            total: Tensor | None = None
            for term in terms:
                try:
                    loss = self._alone(term, context, batch.x, len(batch.at))
                except FAULTS as error:
                    term.attribute_error(error, context.step)
                total = loss if total is None or loss is None else total + loss
            hooks = self.hooks
            if hooks is not None and total is not None:
                found = [one.flatten(1) for one in hooks.gradients(total, len(batch.at))]
        place = self.inputs.position(context.step, self.view)
        summed = self.mechanism.sum([one.detach().cpu().numpy() for one in found])
        noisy = self.steps.release(self.where, place, self.last, summed)
        made = torch.from_numpy(self.mechanism.value(noisy, self.view.expected))
        parts = made.split([parameter.numel() for parameter in parameters])
        return [part.view_as(one).to(one.device, one.dtype) for part, one in zip(parts, parameters, strict=True)]

    def _alone(self, term: Term, context: StepContext, x: Any, count: int) -> Tensor | None:
        """The sum of the losses of each sample alone; None where there is nothing to learn yet."""
        signal = term.fetch(context)
        if signal is None:
            return None
        own = term.own(context)
        if term.columns is not None:
            own, signal = term.shared(own, signal)
        own, value, weights = dense(own), dense(signal.value), signal.weights
        name = term.edge.tap.to if term.edge.reads == "hidden" and term.edge.tap is not None else ""
        starts = self.agent.starts(x, name)
        bounds = list(range(count + 1)) if starts is None else starts.tolist()
        given, weight = term.given(context), term.weight(context)

        def loss(first: int, last: int) -> Tensor:
            rows = slice(first, last)
            some = None if weights is None else weights[rows]
            return term.compute(context, own[rows], value[rows], signal.form, some, given)

        losses = [loss(first, last) for first, last in pairwise(bounds) if last > first]
        if isinstance(self.agent.module, StandIn) and losses and starts is None:
            _refuse_meeting(term, loss(0, count), torch.stack(losses))
        return weight * torch.stack(losses).sum() if losses else None


def forward_privately(
    inputs: Inputs, op: Op, view: Drawn, refuse: Callable[[Any], None]
) -> Callable[[StepContext], None]:
    """A forward op of an agent that trains privately, on its private samples; ``refuse``: what has no gradient."""
    private, host, agent = Noised(inputs, op.node, view), inputs.host, inputs.host.agents[op.node]
    threads, names = agent.weights.settings.threads, inputs.taps.get((op.node, op.stream), ())

    def forward(context: StepContext) -> None:
        batch = inputs.batch(context, view)
        if batch is None:
            agent.forwards += 1  # counted, so that counts do not tell how samples were drawn
            return
        host.threads(threads)
        x = inputs.see(context, agent, view, batch)
        try:
            with private.forwarding(context.step, len(batch.at)):
                value = agent.forward(x, names)
            if not value[0].requires_grad:
                refuse(value)
        except FAULTS as error:
            build.attribute_error(host, op.node, error, f"at step {context.step} on the stream {op.stream!r}")
        context.values[op] = value

    return forward


def hooks_of(host: HostState, agent: Agent) -> PerSample | None:
    """The hooks on an agent's module, made and proved when they are first asked for."""
    if isinstance(agent.module, StandIn):
        return None
    if agent.name not in host.per_sample:
        prove(agent.module, host.reading, host.streams, agent.name)
        host.per_sample[agent.name] = PerSample(agent.module)
    return host.per_sample[agent.name]


def prove(module: nn.Module, reading: Preprocessor, streams: Mapping[str, Stream], agent: str) -> None:
    """Refuse a model of which gradients by sample are not known: of random numbers, or texts that are nobody's own."""
    where = f"agents.{agent}.model"
    refuse_layers(module, where)
    if not reading.texts:
        like = reading.samples(agent, torch.arange(1))
        assert isinstance(like, Tensor)
        drawn = torch.randn(PROVED, *like.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        refuse_unproved(module, drawn, [drawn[one : one + 1] for one in range(PROVED)], where)
        return refuse_meeting(module, drawn, [drawn[[0, *[one] * (PROVED - 1)]] for one in range(1, PROVED)], where)
    rows = streams["train"].rows
    for stream in streams.values():
        rows = rows[~torch.isin(rows, stream.rows)] if stream.private else rows
    if not len(rows):
        rows = streams["validation"].rows
    encoded, places = reading.encoded(agent, rows[:PROVED]), torch.arange(min(PROVED, len(rows)))
    whole, alone = encoded.batch(places), [encoded.batch(places[one : one + 1]) for one in places.tolist()]
    refuse_unproved(module, whole, alone, where)
    beside = (encoded.batch(torch.tensor([0, *[one] * (len(places) - 1)])) for one in places.tolist())
    alike = [batch for batch in beside if batch.ids.shape == whole.ids.shape]  # else other numbers are drawn
    return refuse_meeting(module, whole, alike, where)


def _refuse_objective(host: HostState, edge: Any) -> None:
    """Refuse a loss that has weights of its own, or looks at the labels of all samples."""
    made = host.objectives[edge.id]
    if any(True for _ in made.parameters()):
        what = f"{edge.objective.name} trains weights of its own on private samples, without noise"
        raise MeshError(what, where=f"{edge.where}.objective", instead="an objective without an adapter")
    if getattr(made, "asks_labels", False):
        what = f"{edge.objective.name} counts the labels of all private samples, without noise"
        raise MeshError(what, where=f"{edge.where}.objective", instead="class_weights as numbers, or none")


def _refuse_meeting(term: Term, whole: Tensor, alone: Tensor) -> None:
    """Refuse a loss that compares samples with one another: alone they have another."""
    for expected in (alone.mean(), alone.sum()):
        if abs(float(whole - expected)) <= ALIKE * max(abs(float(expected)), 1e-2):
            return
    assert term.edge.objective is not None
    what = f"{term.edge.objective.name} compares the samples of a batch, so that none has a loss, and a gradient, alone"
    raise MeshError(what, where=f"{term.edge.where}.objective", instead="kl, ce, or another loss of single samples")
