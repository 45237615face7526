"""The tables of a comparison: contenders, their differences with verdicts, and what the figures do not say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from kdmesh.report.grid import KEPT, Column, Grid, figure, interval, signed
from kdmesh.report.run_folder import ALSO
from kdmesh.statistics import ALL_SAME, EQUAL, NO_VERDICT, ONE_NUMBER, SAME
from kdmesh.tasks import metric

REWARDED = "Rewards of written texts"
REWARDS = "Of all that was written to learn from, the first texts too: no figure on test."
OTHERS = {"alone": "alone", "best_teacher": "by the best teacher only"}  # controls, as part of a sentence


def compare_tables(table: Mapping[str, Any]) -> list[Grid]:
    """Lay out a ``comparison.json``."""
    return [_contenders(table), *_rewards(table), _differences(table), *_controls(table)]


def words(row: Mapping[str, Any], equal: float | None) -> str:
    """A verdict as text."""
    verdict = row.get("verdict")
    if verdict is None:
        return NO_VERDICT
    return f"equal within {equal:g}" if verdict == EQUAL and equal is not None else str(verdict)


def limits(table: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the figures, in sentences."""
    unit, many = table["unit"], sum(row.get("p") is not None for row in table["differences"])
    by = metric(table["metric"])
    lines = [f"{by.title} on test; {'higher' if by.higher else 'lower'} is better."]
    if unit == "split":
        lines.append(
            "A figure and a difference per split, the mean over its seeds; intervals are over splits, wider for the "
            "samples that these share (Nadeau and Bengio, 2003). Controls are of the first split."
        )
    else:
        lines.append(
            "Differences are paired by seed, on one split: the 95% interval is of training alone (initial weights, "
            "order), not of which samples are tested."
        )
        if any("over_samples" in row for row in table["differences"]):
            lines.append("Over samples: a bootstrap over the test samples, of these trials.")
        elif any("mean" in row for row in table["differences"]):
            lines.append("What each test sample scored is not recorded for this metric: no interval over samples.")
    without = Counter(one["contender"] for one in table["trials"] if one["value"] is None)
    if without:
        told = ", ".join(f"{count} of {name}" for name, count in without.items())
        lines.append(
            f"Trials without a finite figure: {told}. Their pairs are left out, so that what is said of these "
            "contenders is of the trials that went well."
        )
    if many > 1:
        lines.append(f"Verdicts are adjusted for {many} comparisons (Holm); intervals are of each alone.")
    if any(row.get("low") is not None and row["low"] == row["high"] != 0 for row in table["differences"]):
        lines.append(ONE_NUMBER)
    if any(row.get("verdict") == SAME for row in table["differences"]):
        lines.append(ALL_SAME)
    for row in table["contenders"]:
        for which, why in (row.get("no_control") or {}).items():
            lines.append(f"{row['contender']} has no control {OTHERS.get(which, which)}: {why}")
    lines.append("Found: the true difference that as many trials of this spread would find in 8 of 10 repeats.")
    if any(row["n"] == 1 for row in table["differences"] if "n" in row):
        lines.append(f"One {unit} gives no verdict: --seeds 10, or more.")
    return lines


def failures(table: Mapping[str, Any]) -> list[str]:
    """Which trials failed, and why."""
    return [f"failed: {trial}: {error}" for trial, error in table["failed"].items()]


def _contenders(table: Mapping[str, Any]) -> Grid:
    rows = [
        {
            "contender": row["contender"],
            "agent": row["agent"],
            "mean": row.get("mean"),
            "half": row.get("half_width"),
            "n": row["n"],
            "differs": ", ".join(row["differs"]) or None,
        }
        for row in table["contenders"]
    ]
    columns = [
        Column("", "contender", spare=KEPT),
        Column("agent", "agent"),
        Column("mean", "mean", figure),
        Column("±", "half", figure),
        Column("trials", "n"),
        Column("changed", "differs", spare=1),
    ]
    return Grid("contenders", columns, rows)


def rewards(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each stream of a contender whose texts were rewarded."""
    return [
        {"contender": row["contender"], "stream": stream, **of}
        for row in table["contenders"]
        for stream, of in (row.get("rewards") or {}).items()
    ]


def _rewards(table: Mapping[str, Any]) -> list[Grid]:
    columns = [
        Column("", "contender", spare=KEPT),
        Column("stream", "stream"),
        Column("mean\nreward", "mean", figure),
        Column("±", "half_width", figure),
        Column("trials", "n"),
    ]
    made = rewards(table)
    return [Grid(REWARDED.lower(), columns, made, REWARDS)] if made else []


def _differences(table: Mapping[str, Any]) -> Grid:
    rows = []
    for row in table["differences"]:
        known, samples = "mean" in row, row.get("over_samples")
        rows.append(
            {
                "pair": f"{row['contender']} minus {row['against']}",
                "verdict": words(row, table["equal"]) if known else row["lacks"],
                "mean": row.get("mean"),
                "interval": None if row.get("low") is None else (row["low"], row["high"]),
                "samples": None if samples is None else (samples["low"], samples["high"]),
                "p": row.get("p"),
                "effect": row.get("effect"),
                "wins": f"{row['wins']}/{row['ties']}/{row['n'] - row['wins'] - row['ties']}" if known else None,
                "found": row.get("detectable") or None,  # 0: there is no spread to tell by
            }
        )
    columns = [
        Column("", "pair", spare=KEPT),
        Column("verdict", "verdict"),
        Column("mean", "mean", signed),
        Column("95% interval", "interval", interval),
        Column("over samples", "samples", interval, spare=1),
        Column("wins/ties/\nlosses", "wins", spare=2),
        Column("p", "p", _p, spare=2),
        Column("effect", "effect", _effect, spare=3),
        Column("found", "found", figure, spare=3),
    ]
    return Grid("differences", columns, rows, "\n".join([*limits(table), *failures(table)]))


def _controls(table: Mapping[str, Any]) -> list[Grid]:
    rows = [
        {
            "contender": row["contender"],
            "against": ALSO[control["against"]],
            "verdict": words(control, None),
            "mean": control["mean"],
            "interval": None if control["low"] is None else (control["low"], control["high"]),
            "n": control["n"],
        }
        for row in table["contenders"]
        for control in row["controls"]
    ]
    columns = [
        Column("", "contender", spare=KEPT),
        Column("against the same agent", "against", spare=KEPT),
        Column("verdict", "verdict"),
        Column("mean", "mean", signed),
        Column("95% interval", "interval", interval),
        Column("n", "n", spare=1),
    ]
    return [Grid("each contender against its own controls", columns, rows)] if rows else []


def _effect(value: float) -> str:
    return f"{value:+.2f}"


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}"
