"""How an agent's host writes a stream, and where what was written goes: see :mod:`kdmesh.hosts.written`."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import RunFailed
from kdmesh.hosts import guard
from kdmesh.hosts.publications import Key
from kdmesh.hosts.written import IDS, KIND, STEP, X, Y, period
from kdmesh.streams.seeds import at_step, mix

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kdmesh.graph.steps import Op
    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.state import HostState
    from kdmesh.hosts.step import StepContext
    from kdmesh.hosts.written import Writer


def writers(host: HostState) -> dict[str, Writer]:
    """The writers of a host's agents, by stream: copies, so that no run moves what Python gave."""
    streams = host.plan.spec.streams
    return {
        name: deepcopy(writer)
        for name, writer in host.config.writers.items()
        if name in streams and streams[name].generated_by in host.agents
    }


def keep(host: HostState, op: Op, step: int, value: tuple[Tensor, dict[str, Any]]) -> None:
    """Put what was written for a step, here or elsewhere, among the host's publications."""
    parts = {X: value[0], **value[1], STEP: torch.tensor(step)}
    for part, tensor in parts.items():
        if tensor is not None:
            host.publications.keep(Key(op.node, op.stream, part, KIND), tensor)


def write_op(inputs: Inputs, op: Op) -> Callable[[StepContext], None] | None:
    """Write a stream where its period begins; None where the agent lives elsewhere."""
    host = inputs.host
    if op.node not in host.agents:
        return None
    agent, writer = host.agents[op.node], host.writers[op.stream]
    every = period(host.plan, op.stream, host.streams[inputs.plan.streams[0]], inputs.settings)
    seed, first = mix(host.seed, KIND, op.stream, inputs.plan.name), inputs.first
    labelled, size = host.streams[op.stream].labelled, inputs.settings.batch_size
    threads, stamp = agent.weights.settings.threads, Key(op.node, op.stream, STEP, KIND)

    def write(context: StepContext) -> None:
        late = (context.step - first) % every
        if late:
            last = host.publications.get(stamp)
            if last is None or int(last.values) != context.step - late:  # type: ignore[arg-type]  # a tensor
                what = f"what {op.node} wrote at step {context.step - late} is not there at step {context.step}"
                raise RunFailed(what, where=f"streams.{op.stream}")
            return
        host.threads(threads)
        training = agent.module.training
        agent.weights.train(False)
        try:
            with guard.seeded(at_step(seed, context.step)), torch.no_grad():
                written = writer.write(context.step, agent)
            guard.refuse_written(written, size, host.table, labelled)
        except Exception as error:
            problem = str(error) if isinstance(error, ValueError) else f"it raised {type(error).__name__}: {error}"
            raise RunFailed(
                f"the writer of this stream, a {type(writer).__name__}, at step {context.step}: {problem}",
                where=f"streams.{op.stream}",
                instead="x, y, ids: a batch of samples, their labels (None where hidden), and ids",
            ) from error
        finally:
            if training:
                agent.weights.train()
        x, y, ids = (None if part is None else part.detach().clone() for part in written)
        assert x is not None
        value = context.values[op] = x, {Y: y, IDS: ids}
        keep(host, op, context.step, value)

    return write
