"""A sweep's folder, read once: its design, the trials that were begun, and the points they amount to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from kdmesh.contracts.run_files import CHOSEN, COSTS, MOST_SEEDS, POINT, SWEEP, SWEPT, TRIALS, point_name
from kdmesh.errors import MeshError
from kdmesh.files import inside, read_json
from kdmesh.report import folders, run_folder
from kdmesh.report.folders import FAILED, FINISHED
from kdmesh.report.page.blocks import number
from kdmesh.report.page.known import row
from kdmesh.tasks import Figure, compared

VERSION = 1  # the latest of both files that is understood
SEARCH, TEST, TEACHERS = "search", "test", "teachers of best-teacher"
Row = dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """A trial that was begun.

    Attributes:
        arm, point: the arm, and the short name of the point.
        seed: of the run; ``part``: by what its budget is divided.
        use: searched, tested, or trained for its teachers alone.
        folder: within the sweep's.
        status, error: as its run's folder says.
        summary: of the run; empty where it is not whole.
        energy: least and most joules; empty where they were not measured.
    """

    arm: str
    point: str
    seed: int
    part: int
    use: str
    folder: str
    status: str
    error: str
    summary: Row
    energy: tuple[float, float] | tuple[()] = ()

    def __str__(self) -> str:
        less = f", 1/{self.part} of the budget" if self.part > 1 else ""
        return f"{self.arm} {self.point}, seed {self.seed}{less}"


class Swept:
    """What there is to know of a sweep. MeshError for one of a later version, or whose design is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        design, self.table, chosen = (read_json(folder / name) for name in (SWEPT, SWEEP, CHOSEN))
        if design is None or not isinstance(design.get("arms"), dict) or not isinstance(design.get("axes"), list):
            raise MeshError(f"its {SWEPT} is damaged", file=str(folder), instead="the folder of a sweep")
        for name, found in ((SWEPT, design), (SWEEP, self.table or {})):
            if (number(found.get("version", 1)) or 0) > VERSION:
                raise MeshError(
                    f"its {name} is of version {found['version']}; this version of kdmesh reads up to {VERSION}",
                    file=str(folder),
                    instead="the version of kdmesh that wrote it, or a later one",
                )
        self.design: Row = design
        self.chosen = row((chosen or {}).get("chosen"))
        self.over = chosen is not None
        self.agent, self.name = str(design.get("agent")), str(design.get("name"))
        self.arms: dict[str, list[str]] = design["arms"]
        self.axes = [row(axis) for axis in design["axes"]]
        self._ranked: dict[str, list[Row]] = {}
        self.status = folders.standing(folder, self.table)

    @cached_property
    def trials(self) -> list[Tried]:
        """The trials that were begun, by arm, point and seed."""
        return [one for arm in self.arms for one in self._of(arm)]

    @cached_property
    def by(self) -> Figure:
        """What decides."""
        said = self.table or next((one.summary for one in self.trials if one.summary), {})
        try:
            return compared({key: said[key] for key in ("task", "metric") if isinstance(said.get(key), str)})
        except MeshError:  # of a plugin that is not installed here
            return Figure("figure")

    def figure(self, one: Tried) -> float | None:
        """The agent's figure on validation in a trial; None of one that is not whole, or has none."""
        metrics = row(row(row(one.summary.get("agents")).get(self.agent)).get("metrics"))
        return number(self.by.of(metrics.get("validation")))

    def updates(self, one: Tried) -> float:
        """Updates of the agent in a trial."""
        return number(row(row(one.summary.get("agents")).get(self.agent)).get("updates")) or 0

    @cached_property
    def points(self) -> list[Row]:
        """A row for each point of each arm and rung, as the table has them; without one, of what was begun so far."""
        if self.table is not None:
            return [row(one) for one in self.table.get("points") or []]
        found: dict[tuple[str, str, int], list[Tried]] = {}
        for one in self.trials:
            if one.use == SEARCH:
                found.setdefault((one.arm, one.point, one.part), []).append(one)
        parts = sorted({part for _, _, part in found}, reverse=True)
        return [
            {
                "arm": arm, "point": point, "rung": parts.index(part), "part": part,
                "values": read_json(self.folder / TRIALS / arm / point / POINT) or {},
                "trials": len(of), "failed": sum(one.status == FAILED for one in of),
                "updates": sum(map(self.updates, of)),
                "validation": fmean(known) if (known := [v for v in map(self.figure, of) if v is not None]) else None,
                "chosen": self.is_chosen(arm, point) and part == 1,
            }
            for (arm, point, part), of in found.items()
        ]  # fmt: skip

    # -- what became of points -------------------------------------------------------------------------------------

    def ranked(self, arm: str) -> list[Row]:
        """The points of an arm: the largest budget first, then the best; what has no figure comes last."""

        def order(one: Row) -> tuple[int, bool, float]:
            figure = number(one["validation"])
            return one["part"], figure is None, 0.0 if figure is None else -self.by.worth(figure)

        if arm not in self._ranked:
            self._ranked[arm] = sorted((one for one in self.points if one["arm"] == arm), key=order)
        return self._ranked[arm]

    def last(self, arm: str) -> list[Row]:
        """Each point of an arm in the last rung that it reached, as `ranked`."""
        return [one for one in self.ranked(arm) if one["rung"] == self._reached[arm, one["point"]]]

    def stopped(self, one: Row) -> bool:
        """Whether halving has left a point behind: others of its rung went on."""
        last = one["rung"] == self._reached[one["arm"], one["point"]]
        return last and one["rung"] < self._deepest[one["arm"]] and number(one["validation"]) is not None

    def fate(self, one: Row) -> str:
        """What became of a point in its rung."""
        if one["chosen"]:
            return "chosen"
        if one["failed"]:
            return f"failed: {one['failed']} of {one['trials']} trials"
        if one["rung"] < self._reached[one["arm"], one["point"]]:
            return "went on"
        if self.stopped(one):
            worths, on = self._rungs[one["arm"], one["rung"]]
            own = self.by.worth(one["validation"])
            rank = 1 + len(worths) - bisect_right(worths, own)
            return f"stopped: rank {rank} of {len(worths)}, the best {on} went on"
        return ""

    @cached_property
    def _reached(self) -> dict[tuple[str, str], int]:
        """The last rung of each point."""
        found: dict[tuple[str, str], int] = {}
        for one in self.points:
            key = one["arm"], one["point"]
            found[key] = max(found.get(key, 0), one["rung"])
        return found

    @cached_property
    def _deepest(self) -> dict[str, int]:
        """The last rung of each arm."""
        return {arm: max((one["rung"] for one in self.points if one["arm"] == arm), default=0) for arm in self.arms}

    @cached_property
    def _rungs(self) -> dict[tuple[str, int], tuple[list[float], int]]:
        """By arm and rung: what its figures are worth, and how many points went on."""
        found: dict[tuple[str, int], tuple[list[float], int]] = {}
        for one in self.points:
            worths, on = found.get((one["arm"], one["rung"]), ([], 0))
            figure = number(one["validation"])
            if figure is not None:
                worths.append(self.by.worth(figure))
            on += one["rung"] < self._reached[one["arm"], one["point"]]
            found[one["arm"], one["rung"]] = (worths, on)
        for worths, _ in found.values():
            worths.sort()
        return found

    def is_chosen(self, arm: str, point: str) -> bool:
        """Whether a point, by its short name, is what an arm chose."""
        return self._chosen_names.get(arm) == point

    @cached_property
    def _chosen_names(self) -> dict[str, str]:
        return {arm: point_name(str(at)) for arm, at in self.chosen.items()}

    def _of(self, arm: str) -> Iterator[Tried]:
        within = inside(self.folder, TRIALS, arm)
        for point in sorted(within.iterdir()) if within.is_dir() else []:
            for at in sorted(point.iterdir()) if point.is_dir() else []:
                words = at.name.split("-")
                if words[0] != "seed" or len(words) not in (2, 4) or not all(map(str.isdecimal, words[1::2])):
                    continue
                seed, part = int(words[1]), int(words[3]) if len(words) == 4 else 1
                try:
                    run = run_folder.read(at)
                except MeshError:
                    continue  # its process ended before it had begun
                energy = row((read_json(at / COSTS) or {}).get("energy")).get("joules")
                ends = [number(one) for one in energy] if isinstance(energy, list) else []
                known = (ends[0], ends[1]) if len(ends) == 2 and None not in ends else ()
                yield Tried(
                    arm, point.name, seed, part, self._use(arm, point.name, seed),
                    at.relative_to(self.folder).as_posix(), run.status, run.error,
                    (run.summary or {}) if run.status == FINISHED else {}, known,  # type: ignore[arg-type]
                )  # fmt: skip

    def _use(self, arm: str, point: str, seed: int) -> str:
        if seed >= (number(self.design.get("seed")) or 0) + MOST_SEEDS:
            return SEARCH
        return TEST if self.is_chosen(arm, point) else TEACHERS
