"""What a sweep was asked to be, as ``sweep.json`` in its folder keeps it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kdmesh.compare.design import read_as
from kdmesh.contracts.run_files import MOST_SEEDS, SWEPT, point_name
from kdmesh.contracts.sampler import Choices, Point, Range
from kdmesh.report.sweep_table import written
from kdmesh.spec.names import Name

if TYPE_CHECKING:
    from pathlib import Path

DESIGN = SWEPT
SCHEMA = 1
MOST = 10_000  # points
MESH, ALONE, BEST = "mesh", "alone", "best-teacher"


class Trial(BaseModel):
    """One run.

    Attributes:
        arm: the mesh, or which control of its agent.
        at: the point, as JSON: of the paths that concern the arm.
        seed: of the run.
        part: the budget is so many times smaller than the mesh's own.
        tested: whether it is measured on test, which no trial of the search is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    at: str
    seed: int
    part: int = 1
    tested: bool = False

    @property
    def point(self) -> Point:
        """The value of each path."""
        found: Point = json.loads(self.at)
        return found

    @property
    def folder(self) -> str:
        """Its run's folder, within the sweep's."""
        return (
            f"trials/{self.arm}/{point_name(self.at)}/seed-{self.seed}{f'-part-{self.part}' if self.part > 1 else ''}"
        )

    def __str__(self) -> str:
        less = f", 1/{self.part} of the budget" if self.part > 1 else ""
        return f"{f'{self.arm} {words(self.point)}'.strip()}, seed {self.seed}{less}"


class Sweep(BaseModel):
    """A sweep.

    Attributes:
        name: of the mesh.
        given: the file's content, with what the command line set.
        anchor: the folder that paths in it start from.
        text: of the file.
        beside: folders with code that the mesh names.
        agent: whose figure on validation decides, and is tested.
        axes: the space.
        sampler: who proposes points, and its settings.
        points: how many.
        turn: how many points are proposed before the sampler is told of them; 0: all.
        search_seeds: how many seeds each point is trained with.
        seed: of the mesh, from which all others are counted.
        seeds: how many fresh ones what was chosen is trained and tested with.
        arms: the mesh and its controls, with the paths that concern each.
        halving: by what number of points is divided, and the budget of one multiplied, from rung to rung; 0: no rungs.
        equal: the margin within which a difference does not matter, in the metric's unit; None: not asked.
        backend, strict_signals, store: of every trial.
        made_of: sums of the data and of the code that points name, which every trial must have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    name: str
    given: dict[str, Any]
    anchor: str
    text: str
    beside: list[str]
    agent: Name
    axes: Annotated[list[Choices | Range], Field(min_length=1)]
    sampler: tuple[str, dict[str, Any]] = ("grid", {})
    points: Annotated[int, Field(ge=2, le=MOST)]
    turn: Annotated[int, Field(ge=0)] = 0
    search_seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = 1
    seed: int = 0
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = 10
    arms: dict[str, list[str]]
    halving: Annotated[int, Field(ge=0)] = 0
    equal: float | None = None
    backend: Literal["inline", "ray"] = "inline"
    strict_signals: bool = False
    store: str | None = None
    made_of: dict[str, Any] = {}

    def search_seed(self, number: int) -> int:
        """The seeds of the search, counted from 0; none of them is a fresh one."""
        return self.seed + MOST_SEEDS + number

    def fresh(self) -> list[int]:
        """The seeds of what is tested."""
        return [self.seed + number for number in range(self.seeds)]


def at(point: Point) -> str:
    """A point as JSON, alike for equal points."""
    return json.dumps(point, sort_keys=True, ensure_ascii=False)


def words(point: Point) -> str:
    """A point as it is told of: each path by its last part, or whole where two end alike."""
    lasts = [path.rpartition(".")[2] for path in point]
    return ", ".join(
        f"{last if lasts.count(last) == 1 else path}={written(value)}"
        for (path, value), last in zip(point.items(), lasts, strict=True)
    )


def read(root: Path) -> Sweep | None:
    """The design of a sweep's folder; None where a folder is of none. MeshError for one that is damaged."""
    return read_as(Sweep, root / DESIGN, "sweep", SCHEMA)
