"""Statistics over seeds: means with t intervals, and differences paired by seed.

All runs share their splits (one data seed), so the interval is of training alone: of initial weights and order, not of
which samples are tested. Nodes of one run share their batches too, and their difference varies less than either.
Nothing here chooses by a test metric: the best teacher of each seed is the one that its run chose on validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

Summary = dict[str, Any]


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and half the width of its 95% t interval (Student, 1908).

    The half-width is None for one value, which says nothing about spread. No value at all is a ValueError.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    mean = fmean(values)
    if len(values) == 1:
        return mean, None
    from scipy.special import stdtrit  # comes with scikit-learn; imported where it is used, for it is slow

    quantile = float(stdtrit(len(values) - 1, 0.975))
    return mean, quantile * stdev(values) / len(values) ** 0.5


def paired(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Compare ``a`` with ``b``, seed by seed: {mean, half_width, wins, ties, n} of the differences a - b.

    ``wins`` counts the seeds in which a is larger, ``ties`` those in which both are equal. Sequences of unequal
    length are a ValueError: they are not paired.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, half_width = interval(differences)
    return {
        "mean": mean,
        "half_width": half_width,
        "wins": sum(difference > 0 for difference in differences),
        "ties": sum(difference == 0 for difference in differences),
        "n": len(differences),
    }


def over_seeds(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Compare the runs of one mesh over seeds, from their ``summary.json``.

    Returns ``{seeds, data_seed, accuracy, differences, notes}``; runs of several data seeds are a ValueError.
    ``accuracy``: per consensus and agent its role, and the mean, half_width and n of its test accuracy.
    ``differences``: per agent that is no teacher, `paired` against ``best teacher`` (each seed's own), ``consensus
    NAME``, and the same student's ``control alone`` and ``control best teacher``. What a seed lacks, a dropped teacher
    say, is left out of the pairs; ``n`` says how many are left.
    """
    data_seeds = {summary.get("data_seed", 0) for summary in summaries}
    if len(data_seeds) > 1:
        raise ValueError(f"runs of different data seeds are not compared: {sorted(data_seeds)}")
    roles = {name: node.get("role", "agent") for summary in summaries for name, node in _nodes(summary).items()}
    accuracy: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for name, role in roles.items():
        own = [accuracy_on_test(_nodes(summary).get(name)) for summary in summaries]
        values = [value for value in own if value is not None]
        if not values:
            continue
        mean, half_width = interval(values)
        accuracy[name] = {"role": role, "mean": mean, "half_width": half_width, "n": len(values)}
        if role not in ("consensus", "teacher"):
            rivals = [_rivals(summary, name) for summary in summaries]
            columns = dict.fromkeys(key for row in rivals for key in row)
            pairs = {key: _both(own, [row.get(key) for row in rivals]) for key in columns}
            differences[name] = {key: paired(*both) for key, both in pairs.items() if both[0]}
    return {
        "seeds": [summary.get("seed") for summary in summaries],
        "data_seed": data_seeds.pop() if data_seeds else 0,
        "accuracy": accuracy,
        "differences": differences,
        "notes": list(dict.fromkeys(note for summary in summaries for note in summary.get("notes") or [])),
    }


def accuracy_on_test(record: dict[str, Any] | None) -> float | None:
    """Return the test accuracy of a node's or a control's record, or None where it was not measured."""
    record = record or {}
    return (record.get("metrics", record).get("test") or {}).get("accuracy")


def _nodes(summary: Summary) -> dict[str, dict[str, Any]]:
    consensus = {name: {**node, "role": "consensus"} for name, node in summary.get("consensus", {}).items()}
    return {**consensus, **summary.get("agents", {})}


def _rivals(summary: Summary, name: str) -> dict[str, float | None]:
    """Return the accuracies of one run that an agent's own is compared with."""
    nodes, controls = _nodes(summary), summary.get("controls", {}).get(name, {})
    found = {"best teacher": accuracy_on_test(nodes.get(summary.get("best_teacher") or ""))}
    found |= {f"consensus {node}": accuracy_on_test(nodes[node]) for node in summary.get("consensus", {})}
    found["control alone"] = accuracy_on_test(controls.get("alone"))
    found["control best teacher"] = accuracy_on_test(controls.get("best_teacher"))
    return {key: value for key, value in found.items() if value is not None}


def _both(a: Sequence[float | None], b: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Keep the seeds in which both were measured."""
    both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    return [x for x, _ in both], [y for _, y in both]
