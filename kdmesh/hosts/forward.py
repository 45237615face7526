"""One forward op of a step: an agent, and the exits that share its forward, as a plain call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import FAULTS
from kdmesh.graph.steps import Op
from kdmesh.hosts import build
from kdmesh.hosts.agent import reseed
from kdmesh.hosts.ahead import answers_ahead
from kdmesh.hosts.forms import former
from kdmesh.hosts.inputs import base
from kdmesh.hosts.publications import Key
from kdmesh.hosts.rollouts import Rollouts
from kdmesh.hosts.step import FROZEN
from kdmesh.hosts.stored_steps import answers_in_steps
from kdmesh.signals.lazy import Lazy, dense
from kdmesh.streams.seeds import at_step, mix

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kdmesh.graph.edges import Edge
    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.ragged import Value
    from kdmesh.hosts.step import StepContext


def trains(inputs: Inputs, agent: str) -> bool:
    """Whether gradient descent moves this agent's weights in this phase."""
    host = inputs.host
    owner = host.plan.owner[agent]
    return owner in inputs.ends and host.weights[owner].ema is None


def _exits(inputs: Inputs, op: Op) -> list[Op]:
    """The forwards that are one: training exits of one set of weights that see the same samples."""
    host = inputs.host
    agents, owner = host.agents, host.plan.owner

    def like(other: Op) -> bool:
        return (
            other._replace(node=op.node) == op
            and owner.get(other.node) == owner[op.node]
            and agents[other.node].exit is not None
            and agents[other.node].view is None
            and agents[other.node].mixing is None
            and other.node not in host.plan.inputs
            and inputs.shard(other.node, other.stream) is inputs.shard(op.node, op.stream)
        )

    return [other for other in inputs.plan.ops if like(other)] if like(op) else [op]


def _needs_grad(inputs: Inputs, op: Op) -> bool:
    """Whether a gradient comes back to a forward: from its own update, or through a flow with `detach: false`."""
    host = inputs.host
    return any(
        edge.stream == op.stream and (edge.target == op.node or (edge.source == op.node and not edge.detach))
        for edge in [*inputs.plan.edges, *(e for n in host.plan.consensus.values() for e in n.inputs)]
    )


def _is_read(inputs: Inputs, op: Op) -> bool:
    """Whether others read a forward's outputs within the step."""
    host = inputs.host
    edges = [*inputs.plan.edges, *(edge for node in host.plan.consensus.values() for edge in node.inputs)]
    return any(e.live and (e.source, e.stream, e.forwarded) == (op.node, op.stream, "") for e in edges)


def refuse_detached(value: Value) -> None:
    """Raise ValueError where no gradient comes back to what was answered: neither to logits nor to what was tapped."""
    if not any(getattr(one, "requires_grad", False) for one in value[1].values()):
        raise ValueError("its answers are detached from its weights, which they are to train")


def forward_op(inputs: Inputs, recorded: list[Edge], op: Op) -> Callable[[StepContext], None] | None:
    """Forward an agent, and the exits that share its forward."""
    host = inputs.host
    agent = host.agents[op.node]
    descends, ema = trains(inputs, op.node), agent.weights.ema
    train_mode = op.mode == "train" or (op.mode == "" and (descends or (ema is not None and ema.mode == "train")))
    exits = _exits(inputs, op) if train_mode else [op]
    if exits[0] != op:
        return None  # the first exit's forward answers for all
    learns = [descends and op.kind == "f" and op.mode != "eval" and _needs_grad(inputs, e) for e in exits]
    grad = any(learns)
    shard, names = inputs.shard(op.node, op.stream), inputs.taps.get((op.node, op.stream), ())
    others = [(host.agents[o.node], inputs.taps.get((o.node, o.stream), ())) for o in exits[1:]]
    seed = mix(host.seed, op.node, op.kind, op.stream, inputs.plan.name)
    fixed, device, see, module = host.forward_size(op.node), agent.device, inputs.see, agent.module
    keys = [
        (exit, Key(exit.node, exit.stream, edge.output, "recorded"))
        for exit in exits
        for edge in recorded
        if edge.source == exit.node and exit == Op("f", exit.node, base(inputs.shard(exit.node, edge.stream)))
    ]
    threads = agent.weights.settings.threads
    read = host.plan.owner[op.node] in inputs.ends and (bool(keys) or _is_read(inputs, op))
    forward_now, threads_now, batch_of = agent.forward, host.threads, inputs.batch
    keep = not descends and ema is None  # what follows another takes its buffers from there
    known = None if train_mode else answers_in_steps(inputs, agent, shard, names)
    ahead = None if train_mode or known is not None else answers_ahead(inputs, agent, shard, names)
    if ahead is not None:
        inputs.ahead[op] = ahead
    alone, answer = not isinstance(shard, Rollouts), former(host, op.node)
    edge = host.plan.input_on(op.node, op.stream)
    seen = None if edge is None else inputs.fetcher(edge, op.node)

    def compute(x: Tensor) -> Any:
        if grad:
            return forward_now(x, names, others)
        with torch.no_grad():
            return forward_now(x, names, others)

    def forward(context: StepContext) -> None:
        batch = batch_of(context, shard)
        if batch is None:
            return
        threads_now(threads)
        if known is not None:
            try:
                context.values[op] = known(context.step, batch)
            except FAULTS as error:
                build.attribute_error(host, op.node, error, f"at step {context.step} on the stream {op.stream!r}")
            return
        x = see(context, agent, shard, batch)
        if seen is not None:
            signal = seen(context)
            assert signal is not None, f"nothing of {edge} is known"
            x = dense(signal.value)
        try:
            if not train_mode:
                value = answer(agent.inference(x, fixed, names, alone) if ahead is None else ahead(context.step))
            else:
                reseed(at_step(seed, context.step), device)
                if module.training:
                    value = compute(x)
                else:  # a flow asks for `mode: train` of weights that do not train
                    value = agent.in_train_mode(lambda: compute(x), keep)
            if grad:
                for one, learning in zip(value if others else (value,), learns, strict=True):
                    if learning and not one[0].requires_grad:
                        refuse_detached(one)
        except FAULTS as error:
            build.attribute_error(host, op.node, error, f"at step {context.step} on the stream {op.stream!r}")
        if read and not others and isinstance(value[0], Lazy):
            value[1][FROZEN] = value[0].frozen_copy()  # who reads it later must not see weights that moved on
        if others:
            context.values.update(zip(exits, value, strict=True))  # type: ignore[arg-type]  # as many as exits
        else:
            context.values[op] = value
        for exit, key in keys:
            context.kept[key] = context.values[exit]

    return forward
