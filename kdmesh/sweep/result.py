"""What a sweep found, as its files keep it: every point, what was chosen, and what its test shows."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import SWEEP, point_name
from kdmesh.statistics import interval, over_paired_samples, paired, verdicts
from kdmesh.sweep.design import MESH, words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from kdmesh.sweep.design import Sweep, Trial
    from kdmesh.sweep.search import Search
    from kdmesh.tasks import Figure

SHEET, TABLE = "points.csv", SWEEP


@dataclass(frozen=True)
class Seen:
    """What there is to tell of.

    Attributes:
        sweep, searches: what was asked, and each arm's search.
        metric: what decides.
        figure: of a trial and a split, None where there is none.
        updates: of the agent in a trial, None where it is not whole.
        scores: of the agent on each test sample in a trial, None where they were not filed.
    """

    sweep: Sweep
    searches: Mapping[str, Search]
    metric: Figure
    figure: Callable[[Trial, str], float | None]
    updates: Callable[[Trial], int | None]
    scores: Callable[[Trial], np.ndarray[Any, Any] | None]


def points(seen: Seen, chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each point of each arm and rung, in the order in which they were proposed.

    ``validation``: the mean of its trials, None where one failed. ``updates``: of the agent, in all its trials.
    """
    rows = []
    for arm, search in seen.searches.items():
        last = len(search.rungs) - 1
        for one in search.tried.values():
            updates = [seen.updates(trial) for trial in one.trials]
            rows.append(
                {
                    "arm": arm,
                    "point": point_name(one.at),
                    "rung": one.rung,
                    "part": one.part,
                    "values": one.trials[0].point,
                    "trials": len(one.trials),
                    "failed": sum(seen.figure(trial, "validation") is None for trial in one.trials),
                    "updates": sum(count or 0 for count in updates),
                    "validation": one.mean,
                    "chosen": one.rung == last and chosen.get(arm) == one.at,
                }
            )
    return rows


def sheet(seen: Seen, rows: Sequence[Mapping[str, Any]]) -> str:
    """The points as CSV, a column for each path; values that are no number or text as JSON.

    A cell is empty where a path does not concern the arm.
    """
    paths = [axis.path for axis in seen.sweep.axes]
    heads = ["arm", "point", "rung", "part", *paths, "trials", "failed", "updates", "metric", "validation", "chosen"]
    lines: list[list[Any]] = [heads]
    for row in rows:
        cells = [_cell(row["values"][path]) if path in row["values"] else "" for path in paths]
        figure = "" if row["validation"] is None else row["validation"]
        own = (row["trials"], row["failed"], row["updates"], seen.metric.name, figure, int(row["chosen"]))
        lines.append([row["arm"], row["point"], row["rung"], row["part"], *cells, *own])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _cell(value: Any) -> Any:
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return value if plain else json.dumps(value, ensure_ascii=False)


def result(
    seen: Seen,
    task: str,
    chosen: Mapping[str, str],
    tests: Sequence[Trial],
    rows: Sequence[dict[str, Any]],
    failed: Mapping[Trial, str],
) -> dict[str, Any]:
    """The table of a sweep, as ``sweep_result.json`` holds it. ``final`` has the form of a comparison's table."""
    sweep = seen.sweep
    arms = []
    for arm, paths in sweep.arms.items():
        own = [row for row in rows if row["arm"] == arm]
        best = next((row for row in own if row["chosen"]), None)
        arms.append(
            {
                "arm": arm,
                "paths": paths,
                "points": len({row["point"] for row in own}),
                "trials": sum(row["trials"] for row in own),
                "failed": sum(row["failed"] for row in own),
                "updates": sum(row["updates"] for row in own),
                "chosen": json.loads(chosen[arm]) if arm in chosen else None,
                "validation": best and best["validation"],
            }
        )
    return {
        "version": 1,
        "name": sweep.name,
        "task": task,
        "metric": seen.metric.name,
        "higher_is_better": seen.metric.higher,
        "agent": sweep.agent,
        "sampler": sweep.sampler[0],
        "paths": [axis.path for axis in sweep.axes],
        "search_seeds": sweep.search_seeds,
        "rungs": [{"points": count, "part": part} for count, part in seen.searches[MESH].rungs],
        "arms": arms,
        "points": list(rows),
        "final": _final(seen, task, chosen, tests, {trial: text for trial, text in failed.items() if trial in tests}),
    }


def _final(
    seen: Seen, task: str, chosen: Mapping[str, str], tests: Sequence[Trial], failed: Mapping[Trial, str]
) -> dict[str, Any]:
    """What was chosen, tested on fresh seeds: the mesh against each control, paired by seed."""
    sweep, metric = seen.sweep, seen.metric
    values = {trial: seen.figure(trial, "test") for trial in tests}
    of = {arm: {t.seed: v for t, v in values.items() if t.arm == arm and v is not None} for arm in chosen}
    rows = []
    for arm, own in of.items():
        point = json.loads(chosen[arm])
        row: dict[str, Any] = {"contender": arm, "agent": sweep.agent, "differs": [words(point)] if point else []}
        if own:
            row["mean"], row["half_width"] = interval(list(own.values()))
        rows.append({**row, "n": len(own), "controls": []})
    known = {
        arm: paired([of[MESH][seed] for seed in both], [of[arm][seed] for seed in both], metric)
        for arm in chosen
        if arm != MESH and (both := [seed for seed in of[MESH] if seed in of[arm]])
    }
    shown = dict(zip(known, verdicts(list(known.values()), metric, sweep.equal), strict=True))
    return {
        "task": task,
        "metric": metric.name,
        "higher_is_better": metric.higher,
        "seeds": sweep.fresh(),
        "equal": sweep.equal,
        "unit": "seed",
        "contenders": rows,
        "differences": [
            {"contender": MESH, "against": arm, **known[arm], **shown[arm], **_samples(seen, arm, tests), "lacks": None}
            if arm in known
            else {"contender": MESH, "against": arm, "lacks": "no trial of both is whole"}
            for arm in sweep.arms
            if arm != MESH
        ],
        "trials": [{"contender": trial.arm, "seed": trial.seed, "value": value} for trial, value in values.items()],
        "failed": {str(trial): text for trial, text in failed.items()},
    }


def _samples(seen: Seen, arm: str, tests: Sequence[Trial]) -> dict[str, Any]:
    """How far the mean difference may be the test set's own chance; nothing where samples' scores were not filed."""
    of: dict[int, dict[str, Trial]] = {}
    for trial in tests:
        of.setdefault(trial.seed, {})[trial.arm] = trial
    found = over_paired_samples((seen.scores(both[MESH]), seen.scores(both[arm])) for both in of.values())
    return {} if found is None else {"over_samples": found}
