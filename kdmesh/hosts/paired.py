"""Measure what an agent says of the two answers to each prompt of a stream, beside what a reference says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.contracts.metric import Answers
from kdmesh.errors import FAULTS
from kdmesh.hosts import build, guard
from kdmesh.hosts.keeping import row_losses
from kdmesh.hosts.metrics import UNDEFINED

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.contracts.metric import Metric
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.state import HostState

PAIRS = "pairs"


def measure(host: HostState, one: Agent, stream: str) -> dict[str, Any]:
    """The figures of an agent on pairs; nothing where no metric asks for them."""
    refs = [ref for ref in host.plan.metrics if PAIRS in host.registry.find("metrics", ref.name).needs]
    if not refs or not len(host.streams[stream].rows):
        return {}
    own = log_probs(host, one, stream)
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for ref in refs:
        if ref.of == one.name:
            reasons[ref.key] = f"it is {ref.of} itself that others are compared with"
            continue
        offer, scores = host.registry.find("metrics", ref.name), own
        if ref.of:
            scores = own - log_probs(host, host.agents[ref.of], stream)
        try:
            metric: Metric = offer.make(ref.settings)
            metric.update(Answers(scores, torch.zeros(len(scores), dtype=torch.int64)))
            value = metric.compute()
            guard.refuse_figure(value, offer.scalar)
        except FAULTS as error:
            host.registry.attribute_error("metrics", ref.name, error, f"on {stream} of {one.name}", "metrics")
        if value is None:
            reasons[ref.key] = metric.undefined()
        else:
            found[ref.key] = value
    return found | ({UNDEFINED: reasons} if any(reasons.values()) else {})


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
    said, pairs = row_losses(value, texts.targets), texts.whole().pairs
    sums = torch.zeros(2 * len(rows), dtype=torch.float64)
    return sums.index_add(0, (2 * pairs[:, 0] + pairs[:, 1]).cpu(), -said.double().cpu()).view(-1, 2)
