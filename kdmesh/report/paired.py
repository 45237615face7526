"""Statistics over seeds: means with t intervals, and differences paired by seed.

All runs share their splits (one data seed), so the interval is of training alone: of initial weights and order, not of
which samples are tested. Nodes of one run share their batches too, and their difference varies less than either.
Nothing here chooses by a test metric: a student's best teacher is, in each seed, the one of its own teachers that its
run chose on validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kdmesh.statistics import ACCURACY, Difference, interval, paired, verdicts
from kdmesh.tasks import Figure, compared

Summary = dict[str, Any]
CONTROLS = ("alone", "best_teacher")
"""Controls that verdicts are on."""
BESIDE = ("averaged", "pooled")
"""Controls that have other samples, or weights, than the student and its teachers: shown, and not judged."""


def over_seeds(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Compare the runs of one mesh over seeds, from their ``summary.json``, by the metric of the mesh.

    Returns ``{seeds, data_seed, metric, higher_is_better, <metric>, controls, reported, differences, verdicts,
    notes}``; runs of
    several data seeds are a ValueError. ``<metric>``, ``accuracy`` say: per consensus and agent its role, and the mean,
    half_width and n of its test figure. ``controls``: the same of each student's controls, ``alone``,
    ``best_teacher`` and `BESIDE`. ``reported``: for each node what the mesh reports beside, by the metric's name: mean,
    half_width and n. ``differences``: per agent that does not only teach or write, `paired` against ``best teacher``
    (of its own teachers the best by validation, seed by seed), ``consensus NAME``, and the same student's ``control
    alone`` and so on. What a seed lacks, a dropped teacher say, is left out of the pairs; ``n`` says how many
    are left. ``verdicts``: see :func:`kdmesh.statistics.verdicts`, against each control, adjusted for all
    of them.
    """
    data_seeds = {summary.get("data_seed", 0) for summary in summaries}
    if len(data_seeds) > 1:
        raise ValueError(f"runs of different data seeds are not compared: {sorted(data_seeds)}")
    metric = compared(summaries[0] if summaries else {})
    roles = {name: node.get("role", "agent") for summary in summaries for name, node in _nodes(summary).items()}
    figures: dict[str, Any] = {}
    controls: dict[str, Any] = {}
    reported: dict[str, dict[str, Any]] = {}
    asked = dict.fromkeys(key for summary in summaries for key in summary.get("reported") or [] if key != metric.name)
    differences: dict[str, Any] = {}
    judged: list[tuple[str, str, Difference]] = []
    for name, role in roles.items():
        own = [on_test(_nodes(summary).get(name), metric) for summary in summaries]
        if (estimate := _estimate(own)) is None:
            continue
        figures[name] = {"role": role, **estimate}
        reported[name] = _beside([_nodes(summary).get(name) for summary in summaries], asked)
        if role in ("consensus", "teacher", "writer"):
            continue
        rivals = [_rivals(summary, name, metric) for summary in summaries]
        columns = dict.fromkeys(key for row in rivals for key in row)
        pairs = {key: _both(own, [row.get(key) for row in rivals]) for key in columns}
        differences[name] = {key: paired(*both, metric) for key, both in pairs.items() if both[0]}
        for control in (*CONTROLS, *BESIDE):
            key = f"control {control.replace('_', ' ')}"
            if (made := _estimate([row.get(key) for row in rivals])) is not None:
                controls.setdefault(name, {})[control] = made
            if control in CONTROLS and (pair := differences[name].get(key)) is not None:
                judged.append((name, control, pair))
    shown = verdicts([pair for _, _, pair in judged], metric)
    return {
        "seeds": [summary.get("seed") for summary in summaries],
        "data_seed": data_seeds.pop() if data_seeds else 0,
        "metric": metric.name,
        "higher_is_better": metric.higher,
        metric.name: figures,
        "controls": controls,
        "reported": reported if asked else {},
        "differences": differences,
        "verdicts": [
            {"agent": name, "against": control, **one} for (name, control, _), one in zip(judged, shown, strict=True)
        ],
        "notes": list(dict.fromkeys(note for summary in summaries for note in summary.get("notes") or [])),
    }


def on_test(record: dict[str, Any] | None, metric: Figure = ACCURACY) -> float | None:
    """Return the test figure of a node's or a control's record, or None where it was not measured."""
    record = record or {}
    return metric.of(record.get("metrics", record).get("test"))


def _estimate(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean, half-width and number of what was measured; None where nothing was."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean, half_width = interval(known)
    return {"mean": mean, "half_width": half_width, "n": len(known)}


def _beside(records: Sequence[dict[str, Any] | None], asked: Iterable[str]) -> dict[str, Any]:
    """Estimates of the metrics that the mesh names, by name; one that was never defined is left out."""
    found = {key: _estimate([on_test(record, Figure(key)) for record in records]) for key in asked}
    return {key: estimate for key, estimate in found.items() if estimate is not None}


def _nodes(summary: Summary) -> dict[str, dict[str, Any]]:
    consensus = {name: {**node, "role": "consensus"} for name, node in summary.get("consensus", {}).items()}
    return {**consensus, **summary.get("agents", {})}


def _rivals(summary: Summary, name: str, metric: Figure) -> dict[str, float | None]:
    """Return the figures of one run that an agent's own is compared with; nothing where it has no such agent."""
    nodes, controls = _nodes(summary), (summary.get("controls") or {}).get(name, {})
    if name not in nodes:
        return {}
    found = {"best teacher": on_test(nodes.get(nodes[name].get("best_teacher") or ""), metric)}
    found |= {f"consensus {node}": on_test(nodes[node], metric) for node in summary.get("consensus", {})}
    for control in (*CONTROLS, *BESIDE):
        found[f"control {control.replace('_', ' ')}"] = on_test(controls.get(control), metric)
    return {key: value for key, value in found.items() if value is not None}


def _both(a: Sequence[float | None], b: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Keep the seeds in which both were measured."""
    both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    return [x for x, _ in both], [y for _, y in both]
