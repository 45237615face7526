"""Streams of texts that were measured: beside what they cost, and the best of the agents that write them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from kdmesh.report.grid import KEPT, Column, Grid, figure, signed
from kdmesh.tasks import Figure, compared, metric

Row = dict[str, Any]
NOTE = (
    "Texts: how many are written to a prompt, those that are read counted. Best agent: of those that write them the "
    "best by validation, asked alone with the mesh's decoding; without validation none is."
)
ORACLE = "oracle: the data's answers, or columns, are read to write it"
BESIDE = ("texts", "undefined", "answered")


def by_what(summaries: Sequence[Row]) -> Figure | None:
    """The metric of texts by which streams are compared: the mesh's own, else the first; None where none was."""
    splits = [
        one[split]
        for summary in summaries
        for one in (summary.get("texts") or {}).values()
        for split in ("test", "validation")
        if split in one
    ]
    names = [name for one in splits for name, value in one.items() if isinstance(value, float) and name not in BESIDE]
    own = compared(summaries[0]) if summaries else None
    if own is not None and own.name in names:
        return own
    return metric(names[0]) if names else None


def rows(summaries: Sequence[Row], by: Figure) -> list[Row]:
    """A row for each measured stream, means over seeds: figures, cost, and the difference from the best agent."""
    found: list[Row] = []
    for name, first in (summaries[0].get("texts") or {}).items():
        every = [(one["texts"][name], one) for one in summaries if name in (one.get("texts") or {})]
        best = [best_agent(one["writers"], summary, by) for one, summary in every]
        tests = [_value(one.get("test"), by) for one, _ in every]
        alone = [_of(agent, summary, "test", by) for agent, (_, summary) in zip(best, every, strict=True)]
        pairs = [(a, b) for a, b in zip(tests, alone, strict=True) if a is not None and b is not None]
        found.append(
            {
                "name": name,
                "by": (first.get("rule") or first.get("agent") or "") + ", oracle" * bool(first.get("oracle")),
                "cost": first["cost"],
                "test": _mean(tests),
                "validation": _mean([_value(one.get("validation"), by) for one, _ in every]),
                "answered": _mean([(one.get("test") or {}).get("answered") for one, _ in every])
                if first.get("rule")
                else None,
                "best": ", ".join(dict.fromkeys(agent for agent in best if agent)) or None,
                "best test": _mean([b for _, b in pairs]),
                "minus": fmean(a - b for a, b in pairs) if pairs else None,
            }
        )
    return found


def texts_table(summaries: Sequence[Row]) -> Grid | None:
    """The same laid out; None where no stream was measured."""
    by = by_what(summaries)
    if by is None:
        return None
    made = rows(summaries, by)
    columns = [
        Column("", "name", spare=KEPT),
        Column("by", "by"),
        Column("texts", "cost", str),
        Column(f"test\n{by.title}", "test", figure),
        Column(f"validation\n{by.title}", "validation", figure, spare=1),
        Column("answered", "answered", figure, spare=2),
        Column("best\nagent", "best"),
        Column("its test", "best test", figure, spare=1),
        Column("minus\nbest", "minus", signed),
    ]
    notes = [NOTE] + ([ORACLE] if any("oracle" in one["by"] for one in made) else [])
    title = "texts, measured" + (f", means of {len(summaries)} seeds" if len(summaries) > 1 else "")
    return Grid(title, columns, made, " ".join(notes))


def best_agent(writers: Sequence[str], summary: Row, by: Figure) -> str | None:
    """The best of some agents by validation, the first of equal ones; None where none was measured there."""
    known = [(name, _of(name, summary, "validation", by)) for name in writers]
    sign = 1 if by.higher else -1
    return max(
        (one for one in known if one[1] is not None), key=lambda one: sign * float(one[1] or 0.0), default=(None, None)
    )[0]


def _of(agent: str | None, summary: Row, split: str, by: Figure) -> float | None:
    figures = ((summary.get("agents") or {}).get(agent) or {}).get("metrics") or {}
    return _value(figures.get(split), by)


def _value(figures: Row | None, by: Figure) -> float | None:
    value = (figures or {}).get(by.name)
    return float(value) if isinstance(value, int | float) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
