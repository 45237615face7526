"""The table of everything that a run gave, which is kept in its folder: ``results.json``, and ``results.csv``."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import RESULTS, SHEET, SUMS
from kdmesh.engine import sums
from kdmesh.report.paired import over_seeds
from kdmesh.tasks import compared, definitions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kdmesh.engine.folder import Folder

COLUMNS = ("seed", "trained", "node", "role", "split", "metric", "value")


def table(summaries: Sequence[dict[str, Any]], failed: Mapping[str, Any], controls: bool) -> dict[str, Any]:
    """Every figure of every seed and control, statistics over seeds, verdicts, and what failed.

    Nothing in it depends on how often the run was interrupted, or on how long it took.
    """
    first = summaries[0] if summaries else {}
    metric = compared(first)
    return {
        "name": first.get("name", ""),
        "task": first.get("task"),
        "metric": metric.name,
        "higher_is_better": metric.higher,
        "definitions": definitions(_measured(summaries)),
        "controls": controls,
        "runs": [_run(summary) for summary in summaries],
        "over_seeds": over_seeds(summaries),
        "failed": {part: str(error) for part, error in failed.items()},
    }


def _measured(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """The figures that some agent has on some split, by name."""
    splits = [split for summary in summaries for one in summary["agents"].values() for split in one["metrics"].values()]
    return list(dict.fromkeys(name for split in splits for name in split or ()))


def keep(folder: Folder, results: dict[str, Any]) -> None:
    """Write both files, and the sums of them and of every part's sums: with these a run is complete."""
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerows([COLUMNS, *_rows(results)])
    folder.text(SHEET, sheet.getvalue())
    folder.json(RESULTS, results)
    parts = [path.relative_to(folder.root).as_posix() for path in folder.root.glob(f"**/{SUMS}")]
    sums.keep(folder.root, [SHEET, RESULTS, *(name for name in sorted(parts) if name != SUMS)])


def _run(summary: dict[str, Any]) -> dict[str, Any]:
    """What a seed's summary says of results."""
    agents = {
        name: {key: facts.get(key) for key in ("role", "best_teacher", "metrics", "weights_sha256", "updates")}
        | ({"objectives": facts["objectives"]} if "objectives" in facts else {})
        for name, facts in summary["agents"].items()
    }
    same = {key: summary.get(key) for key in ("seed", "best_teacher", "rounds", "controls")}
    return {**same, "agents": agents, "consensus": summary["consensus"]}


def _rows(results: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """A row for every figure. ``trained``: in the mesh, or as which control."""
    for run in results["runs"]:
        for name, node in run["consensus"].items():
            yield from _figures(run["seed"], "mesh", name, "consensus", node["metrics"])
        for name, node in run["agents"].items():
            yield from _figures(run["seed"], "mesh", name, node["role"], node["metrics"])
        for student, controls in (run["controls"] or {}).items():
            for which, figures in controls.items():
                yield from _figures(run["seed"], which, student, run["agents"][student]["role"], figures)


def _figures(seed: int, trained: str, node: str, role: str, metrics: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for split, values in metrics.items():
        if isinstance(values, dict):  # beside the figures a control says who taught it
            yield from (
                (seed, trained, node, role, split, metric, value)
                for metric, value in values.items()
                if not isinstance(value, list | dict)  # those that are no single number stand in results.json
            )
