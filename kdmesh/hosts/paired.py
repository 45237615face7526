"""Measure what an agent says of the two answers to each prompt of a stream, beside what a reference says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.contracts.metric import Answers
from kdmesh.errors import FAULTS
from kdmesh.hosts import build
from kdmesh.hosts.keeping import row_losses
from kdmesh.hosts.metrics import UNDEFINED, at_once
from kdmesh.streams.texts import AT_ONCE

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.state import HostState
    from kdmesh.signals.lazy import Lazy
    from kdmesh.spec import MetricRef
    from kdmesh.streams.tokens import Encoded

PAIRS = "pairs"


def measure(host: HostState, one: Agent, stream: str) -> dict[str, Any]:
    """The figures of an agent on pairs; nothing where no metric asks for them."""
    refs = [ref for ref in host.plan.metrics if PAIRS in host.registry.find("metrics", ref.name).needs]
    if not refs or not len(host.streams[stream].rows):
        return {}
    own = log_probs(host, one, stream)
    itself = {ref.key: f"it is {ref.of} itself that others are compared with" for ref in refs if ref.of == one.name}

    def compared(ref: MetricRef) -> Answers:
        return as_rows(own - log_probs(host, host.agents[ref.of], stream) if ref.of else own)

    given = ((ref, compared(ref)) for ref in refs if ref.key not in itself)
    found = at_once(given, host.registry, f"on {stream} of {one.name}")
    reasons = {**itself, **found.get(UNDEFINED, {})}
    return found | ({UNDEFINED: reasons} if reasons else {})


def as_rows(scores: Tensor) -> Answers:
    """Log-probabilities ``[n, 2]`` of two answers as metrics see them."""
    return Answers(scores, torch.zeros(len(scores), dtype=torch.int64))


@torch.no_grad()
def log_probs(host: HostState, one: Agent, stream: str) -> Tensor:
    """The log-probability of the chosen and the rejected answer of each sample, ``[n, 2]`` float64 on the CPU, in nats:
    sums over their tokens.
    """
    rows = host.streams[stream].rows_for(one.name)
    texts = host.reading.encoded(one.name, rows, True).to(one.device)
    host.threads(one.weights.settings.threads)
    before = one.forwards
    try:
        value = one.inference(texts, host.forward_size(one.name))[0]
    except FAULTS as error:
        build.attribute_error(host, one.name, error, f"the pairs of {stream!r}")
    one.forwards = before  # measuring is not teaching
    return of_answers(value, texts)


@torch.no_grad()
def of_answers(value: Tensor | Lazy, texts: Encoded) -> Tensor:
    """The same of what a model says, a row for each unit, of pairs as it reads them."""
    said = row_losses(value, texts.targets).cpu()
    sums, done = torch.zeros(2 * len(texts), dtype=torch.float64), 0
    for at in torch.arange(len(texts)).split(AT_ONCE):  # padded together all of them would fill memory
        pairs = texts.select(at).whole().pairs.cpu()
        own = -said[done : done + len(pairs)].double()  # on the CPU: not every device has float64
        sums.index_add_(0, 2 * (int(at[0]) + pairs[:, 0]) + pairs[:, 1], own)
        done += len(pairs)
    return sums.view(-1, 2)
