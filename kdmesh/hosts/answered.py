"""How each test sample was answered: kept while a host measures, so that no forward is made for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch

from kdmesh.contracts.metric import Answers
from kdmesh.errors import FAULTS
from kdmesh.hosts import guard, metrics
from kdmesh.hosts.state import Kept
from kdmesh.signals.lazy import dense
from kdmesh.signals.wide import widened
from kdmesh.tasks import probabilistic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.loader import ShardView
    from kdmesh.hosts.state import HostState
    from kdmesh.signals.lazy import Lazy
    from kdmesh.streams.stream import Stream

    Array = np.ndarray[Any, Any]

STREAM = "test"
MOST = 64 * 2**20  # bytes, of all agents together
SMALL = torch.int32
NOBODY = -1  # as a decision: none was made


class Coverage(TypedDict):
    """Of a consensus that may abstain: how many of how many ``rows`` it ``answered``, and ``coverage``, their share.

    ``over_all``: the metric by which agents are compared over all rows, of which those without an answer count as the
    worst that there is; left out where the metric is no mean over rows, or knows no worst.
    """

    answered: int
    rows: int
    coverage: float
    over_all: NotRequired[float]


def withheld(plan: Plan, streams: Mapping[str, Stream]) -> str:
    """Why nothing is kept of single test samples; empty where they are kept."""
    if STREAM not in streams:
        return "there is no test stream"
    if plan.task.outputs == "vocabulary":
        return f"the answers of task {plan.task.name} are as many as its texts have tokens"
    rows = streams[STREAM].rows
    for stream in streams.values():
        if stream.private and bool(torch.isin(stream.rows, rows).any()):
            return f"test samples are private, by stream {stream.name}: nothing of them leaves their host"
    return too_many(12 * len(rows) * (len(plan.spec.agents) + len(plan.consensus)))


def too_many(size: int) -> str:
    """Why answers of so many bytes are not kept; empty where they are."""
    return f"they would take {size / 2**20:.0f} MiB, of {MOST // 2**20} at most" if size > MOST else ""


@torch.no_grad()
def keep(
    host: HostState,
    name: str,
    answers: Tensor | Lazy,
    truth: Tensor,
    shard: ShardView,
    classes: Sequence[int] | None,
    probs: bool = False,
    who: Tensor | None = None,
) -> None:
    """Keep how an agent or a consensus answered the test stream; nothing of another stream, or where it is withheld.

    The arguments are those of the measurement; ``who [N]`` bool: the rows that it answered, None for all.
    """
    if shard.stream.name != STREAM or withheld(host.plan, host.streams):
        return
    plan, rows = host.plan, _rows(host, answers, truth, classes, probs, who)
    scores = rows.scores
    ids = shard.ids if shard.counts is None else shard.ids.repeat_interleave(shard.counts.cpu())
    score = _score(host, rows)
    confidence: Tensor | None = None
    decided = metrics.predictions(scores, plan.answers.decide) if plan.task.decides else None
    if decided is not None:
        if plan.task.labels == "classes" and probabilistic(plan.task.name):
            confidence = rows.p.gather(1, decided[:, None])[:, 0].float()
        decided = (decided if classes is None else torch.tensor(classes, device=decided.device)[decided]).to(SMALL)
    if who is not None:
        score, confidence = (_where(who, one, math.nan) for one in (score, confidence))
        decided, scores = _where(who, decided, NOBODY), scores.masked_fill(~who[:, None], math.nan)
    labels = truth if truth.is_floating_point() else truth.to(SMALL)
    host.test[name] = Kept(
        ids.cpu().numpy(),
        labels.cpu().numpy(),
        _array(None if score is None else score.float()),
        _array(decided),
        _array(confidence),
        _array(scores.float() if plan.task.labels == "values" else None),
    )


def coverage(
    host: HostState, answers: Tensor | Lazy, truth: Tensor, classes: Sequence[int] | None, probs: bool, who: Tensor
) -> Coverage:
    """How many rows were answered, ``who [N]`` bool, and the metric by which agents are compared over all of them."""
    count, rows = int(who.sum()), len(who)
    found: Coverage = {"answered": count, "rows": rows, "coverage": count / rows if rows else 0.0}
    (ref,) = (ref for ref in host.plan.metrics if ref.key == host.plan.primary)
    offer = host.registry.find("metrics", ref.name)
    worst = offer.lowest if offer.higher else offer.highest
    score = _score(host, _rows(host, answers, truth, classes, probs, who))
    if worst is not None and score is not None:
        counted = widened(score).masked_fill(~who, worst)[~score.isnan()]
        if len(counted):
            found["over_all"] = counted.mean().item()
    return found


def _rows(
    host: HostState,
    answers: Tensor | Lazy,
    truth: Tensor,
    classes: Sequence[int] | None,
    probs: bool,
    who: Tensor | None,
) -> Answers:
    """Answers as metrics take them; a row that was not answered, which may hold anything, says nothing."""
    scores = dense(answers)
    if who is not None:
        scores = scores.masked_fill(~who[:, None], 1 / scores.shape[1])
    total = host.plan.answers.outputs(host.table) if host.plan.task.outputs == "labels" else None
    return Answers(scores, truth, probs=probs, classes=classes, total=total)


def _where(who: Tensor, values: Tensor | None, otherwise: float) -> Tensor | None:
    return None if values is None else values.masked_fill(~who, otherwise)


def _array(values: Tensor | None) -> Array | None:
    return None if values is None else values.cpu().numpy()


def _score(host: HostState, rows: Answers) -> Tensor | None:
    """What each row adds to the metric by which the run compares; None where that is no mean over rows."""
    (ref,) = (ref for ref in host.plan.metrics if ref.key == host.plan.primary)
    metric = host.registry.find("metrics", ref.name).make(ref.settings)
    try:
        score: Tensor | None = metric.each(rows)
        if score is not None:
            guard.refuse_each(score, rows.scores)
    except FAULTS as error:
        host.registry.attribute_error("metrics", ref.name, error, f"on {STREAM}", "metrics")
    return score


def taken(host: HostState) -> dict[str, Kept]:
    """What was kept, by agent or consensus; it is kept no longer."""
    kept, host.test = host.test, {}
    return kept
