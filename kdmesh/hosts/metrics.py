"""What is measured of an agent or a consensus on a labelled stream, and of several on any stream."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers
from kdmesh.errors import FAULTS
from kdmesh.hosts import guard
from kdmesh.hosts.by_column import ByColumn
from kdmesh.signals.crossing import LARGE

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from kdmesh.contracts.metric import Metric
    from kdmesh.graph.plan import Plan
    from kdmesh.offers import MetricOffer
    from kdmesh.plugins import Registry
    from kdmesh.signals.lazy import Lazy
    from kdmesh.spec import MetricRef

UNDEFINED = "undefined"  # among figures: which metrics are not defined on these labels, and why


def made(
    plan: Plan,
    registry: Registry,
    characters: bool,
    values: Mapping[str, Sequence[str]],
    make: Callable[[str, dict[str, Any]], Metric],
) -> dict[str, Metric]:
    """The metrics of a mesh, fresh, by key; without those that need what is not there.

    ``characters``: whether it is known of how many their rows are; ``values``: of columns by which some are measured,
    all that are in the data; ``make``: makes one of its name and settings.
    """
    found: dict[str, Metric] = {}
    for ref in plan.metrics:
        offer: MetricOffer = registry.find("metrics", ref.name)
        if {"texts", "pairs"} & {*offer.needs}:
            continue  # of what is written, or of two answers: see spoken.py and paired.py
        if ref.by:
            found[ref.key] = ByColumn(
                ref.name, ref.by, values[ref.by], partial(make, ref.name, ref.settings), offer.higher
            )
        elif characters or "characters" not in offer.needs:
            found[ref.key] = make(ref.name, ref.settings)
    return found


@torch.no_grad()
def measure(
    metrics: Mapping[str, Metric],
    scores: Tensor | Lazy,
    y: Tensor,
    *,
    probs: bool = False,
    characters: Tensor | None = None,
    classes: Sequence[int] | None = None,
    total: int | None = None,
    columns: Mapping[str, Tensor] | None = None,
    on_error: Callable[[str, BaseException], None] | None = None,
    single: Container[str] = (),
) -> dict[str, Any]:
    """The figures of answers on a labelled stream, by metric, in the order of ``metrics``, which start fresh.

    ``scores [N, ...]``, ``y [N, ...]``, ``probs``, ``classes``, ``total``, ``columns``: see
    :class:`kdmesh.contracts.metric.Answers`; ``characters [N]``: about how many each answer is. Rows that are not made
    yet are made a chunk at a time. A metric that is not defined on these labels is left out, and its reason stands
    under ``undefined``. ``on_error``: what to do with a metric that raises, by name; by default it is raised.
    ``single``: the names of those whose figure is one number.
    """
    step = len(y) if isinstance(scores, Tensor) else max(1, LARGE // scores.shape[1])
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    last = ""
    try:
        for start in range(0, len(y), max(step, 1)):
            part = scores if isinstance(scores, Tensor) else scores.rows(start, min(start + step, len(y)))
            about = None if characters is None else characters[start : start + len(part)]
            truth = y[start : start + len(part)]
            by = {name: numbers[start : start + len(part)] for name, numbers in (columns or {}).items()}
            rows = Answers(part, truth, probs=probs, classes=classes, characters=about, total=total, columns=by)
            given = (rows.scores, rows.labels)
            before = guard.marks(given)
            for last, metric in metrics.items():  # noqa: B007  for the message
                metric.update(rows)
                if (after := guard.marks(given)) != before:
                    guard.refuse_worked_on(("answers.scores", "answers.labels"), before, after)
        for name, metric in metrics.items():
            last = name
            value = metric.compute()
            guard.refuse_figure(value, name in single)
            if value is None:
                reasons[name] = metric.undefined()
            elif value != value and isinstance(scores, Tensor) and scores.isfinite().all():
                reasons[name] = "it gave NaN, of answers that are finite"
            else:
                found[name] = value
    except FAULTS as error:
        if on_error is not None:
            on_error(last, error)
        raise
    reasons = {name: reason for name, reason in reasons.items() if reason}
    return {**found, **({UNDEFINED: reasons} if reasons else {})}


def at_once(asked: Iterable[tuple[MetricRef, Answers]], registry: Registry, doing: str) -> dict[str, Any]:
    """The figures of metrics that are given all of their rows at once, each its own, by key; ``undefined`` as above.

    ``doing``: what they are of, for the error of one that fails.
    """
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for ref, rows in asked:
        offer: MetricOffer = registry.find("metrics", ref.name)
        try:
            metric: Metric = offer.make(ref.settings)
            metric.update(rows)
            value = metric.compute()
            guard.refuse_figure(value, offer.scalar)
        except FAULTS as error:
            registry.attribute_error("metrics", ref.name, error, doing, "metrics")
        if value is None:
            reasons[ref.key] = metric.undefined()
        else:
            found[ref.key] = value
    return found | ({UNDEFINED: reasons} if any(reasons.values()) else {})


def scalars(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures that are numbers: what events tell, and what is compared."""
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


def predictions(
    scores: Tensor | Lazy, decide: Callable[[Tensor], Tensor | None], classes: Sequence[int] | None = None
) -> Tensor | None:
    """The answer of each row, ``[N]`` or ``[N, K]`` int64, by the task; None where its answers are not discrete.

    ``classes``: what columns stand for, if not for themselves.
    """
    if isinstance(scores, Tensor):
        found = decide(scores)
    else:
        step = max(1, LARGE // scores.shape[1])
        parts = [decide(scores.rows(at, min(at + step, len(scores)))) for at in range(0, len(scores), step)]
        known = [part for part in parts if part is not None]
        found = torch.cat(known) if known else None
    return found if classes is None or found is None else torch.tensor(classes, device=found.device)[found]


def agreement(predictions: Tensor) -> float:
    """Mean share of answers that two sources give alike, over all pairs; 1 for one source.

    ``predictions``: ``[M, N]`` int64, or ``[M, N, K]`` of samples with K answers each.
    """
    count = len(predictions)
    if count < 2:
        return 1.0
    total = 0.0
    for i in range(count):
        for j in range(i + 1, count):
            total += _share(predictions[i] == predictions[j])
    return total / (count * (count - 1) / 2)


def churn(predictions: Tensor, before: Tensor | None) -> float | None:
    """Mean share of answers that changed since the last round; of one shape each; None in the first round."""
    return None if before is None else _share(predictions != before)


def _share(held: Tensor) -> float:
    """The share of a mask that holds, counted: not every device has float64. NaN of none."""
    return int(held.sum()) / held.numel() if held.numel() else math.nan
