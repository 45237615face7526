"""From what a command line asks for to a sweep's design: every point is planned, and each different mesh checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kdmesh.checks.budget import stage_steps
from kdmesh.compare import making
from kdmesh.compare.comparison import alike
from kdmesh.compare.contender import counted, taught_by
from kdmesh.compare.design import refuse_margin
from kdmesh.compare.making import cores
from kdmesh.engine.folder import made_of
from kdmesh.engine.inputs import code
from kdmesh.engine.spared import stored_at
from kdmesh.errors import MeshError
from kdmesh.files import to_json
from kdmesh.graph.budgets import refuse_trials
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import digest
from kdmesh.plugins import registry
from kdmesh.spec.override import apply
from kdmesh.spec.read import locate, read_mesh, read_text
from kdmesh.spec.yaml12 import load
from kdmesh.sweep.axes import axes, size
from kdmesh.sweep.budget import rungs, shortest
from kdmesh.sweep.design import ALONE, BEST, DESIGN, MESH, MOST, Sweep, at, words
from kdmesh.sweep.meshes import Meshes, named, taught_by_several
from kdmesh.sweep.search import proposal, sampler_of
from kdmesh.tasks import metric

if TYPE_CHECKING:
    from kdmesh.checks.checked import Checked
    from kdmesh.contracts.sampler import Axis, Point
    from kdmesh.graph.plan import Plan

POINTS = 20  # that a sampler is asked for where nobody says how many


@dataclass
class Asked:
    """What the command line asks for."""

    file: str
    over: Sequence[str]
    overrides: Sequence[str] = ()
    beside: Sequence[str] = ()
    sampler: str = "grid"  # a name, or YAML of `name: settings`
    points: int | None = None
    search_seeds: int = 1
    seeds: int = 10
    controls: bool = True
    halving: int = 0
    equal: float | None = None
    agent: str = ""
    workers: int | None = None
    backend: str = "inline"
    code: bool = True  # a mesh may name code
    strict_signals: bool = False
    store: str | None = None


@dataclass
class Found:
    """What the check of a sweep found: steps of a trial, by arm."""

    steps: dict[str, int] = field(default_factory=dict)


def design(asked: Asked, said: Callable[[int, int], None] = lambda done, total: None) -> tuple[Sweep, Found]:
    """Check that every point can be trained and compared; ``said(done, total)`` hears of each point.

    MeshError, which names the point, for whatever would keep one from running.
    """
    spec = read_mesh(asked.file, asked.overrides)
    path = locate(asked.file)
    text = read_text(path)
    given = apply(load(text, file=asked.file), asked.overrides)
    space = axes(asked.over)
    name, config, adaptive = _sampler(asked)
    meshes = Meshes(given, str(path.resolve().parent), asked.file, asked.code, asked.store)
    corners = _corners(space)
    plan = meshes.plan(corners[0])
    refuse_trials(plan)
    by = metric(plan.primary)
    known = {spec.name: list(plan.spec.agents)}
    agent = counted({spec.name: taught_by(plan)}, known, {"": asked.agent} if asked.agent else {})[spec.name]
    points = _count(asked, space, name)
    with TemporaryDirectory() as folder:
        about = {"axes": space, "count": points, "seed": spec.seed, "higher": by.higher, "folder": Path(folder)}
        sampler = sampler_of(name, config, **about)
        asked_for = () if adaptive else range(points)
        proposed = [point for _ in asked_for if (point := proposal(sampler, name)) is not None]
        proposed = corners if adaptive else proposed
    _refuse_number(name, points if adaptive else len({at(point) for point in proposed}), points)
    refuse_margin(asked.equal, plan.primary)
    checked = _refuse_unmeasured(meshes, plan, corners[0])
    found = Found({MESH: sum(stage_steps(plan, checked, stage) for stage in plan.stages)})
    arms = {MESH: [axis.path for axis in space]}
    if asked.controls and agent in taught_by(plan):
        arms[ALONE] = _concerned(meshes, space, corners, agent)
        found.steps[ALONE] = meshes.updates(plan, agent) * plan.train(agent).accumulate
        if all(taught_by_several(meshes.plan(point), agent) for point in corners):
            arms[BEST] = arms[MESH]
            found.steps[BEST] = found.steps[ALONE]
    _check(meshes, checked, proposed, arms.get(ALONE), agent, said)
    _refuse_halving(asked.halving, adaptive, points, [meshes.plan(point) for point in corners])
    made = Sweep(
        name=spec.name,
        given=given,
        anchor=str(path.resolve().parent),
        text=text,
        beside=list(asked.beside),
        agent=agent,
        axes=space,
        sampler=(name, config),
        points=points,
        turn=min(points, asked.workers or cores()) if adaptive else 0,
        search_seeds=asked.search_seeds,
        seed=spec.seed,
        seeds=asked.seeds,
        arms=arms,
        halving=asked.halving,
        equal=asked.equal,
        backend=asked.backend,
        strict_signals=asked.strict_signals,
        store=stored_at(asked.store),
        made_of={"data": json.loads(to_json(made_of(plan, checked)["data"])), "code": _code(meshes, corners)},
    )
    return made, found


def _code(meshes: Meshes, points: Sequence[Point]) -> dict[str, str]:
    """The sums of all code that meshes name."""
    found: dict[str, str] = {}
    for point in points:
        found |= code(meshes.plan(point).spec)
    return found


def begin(out: Path, made: Sweep) -> Path:
    """Make a sweep's folder: ``out/sweep-<name>/<time>``."""
    return making.begin(out, f"sweep-{made.name}", "sweep", DESIGN, made.model_dump(mode="json"))


def _sampler(asked: Asked) -> tuple[str, dict[str, Any], bool]:
    """The sampler's name, its settings with every default, and whether it learns."""
    where = "--sampler"
    given = load(asked.sampler, where=where)
    if isinstance(given, str):
        given = {given: {}}
    if not isinstance(given, dict) or len(given) != 1 or not isinstance(config := next(iter(given.values())), dict):
        raise MeshError(f"found {asked.sampler!r}", where=where, instead="a name, or 'NAME: {setting: value}'")
    name = str(next(iter(given)))
    settings = registry().check("samplers", name, config, where)
    return name, settings.model_dump(mode="json"), registry().find("samplers", name).adaptive


def _count(asked: Asked, space: Sequence[Axis], name: str) -> int:
    """How many points are asked for."""
    total = size(space)
    if name == "grid" and asked.points is None:
        return min(total or 0, MOST + 1)
    if asked.points is not None and total is not None and asked.points > total:
        raise MeshError(
            f"the values give {total:,} points, and {asked.points:,} are asked for",
            where="--points" if name == "grid" else "--random",
            instead="leave it out: the grid has them all",
        )
    return asked.points or (min(POINTS, total) if total else POINTS)


def _refuse_number(name: str, there: int, points: int) -> None:
    if points > MOST:
        raise MeshError(
            f"more than {MOST:,} points", where="--over", instead="fewer values, or --random 100: a part of the grid"
        )
    if points < 2:
        raise MeshError("one point has nothing to be compared with", where="kdmesh sweep", instead="2 points or more")
    if there < points and name not in ("grid", "random"):
        whose = registry().theirs("samplers", name) or f"the sampler {name!r}"
        what = f"{whose} proposes {there} different points, and {points} are asked for"
        raise MeshError(what, where=f"--sampler {name}", instead=f"--points {there}, or another sampler")
    if there < points:
        raise MeshError(f"{there} points were found, not {points}", where="--random", instead=f"--random {there}")


def _corners(space: Sequence[Axis]) -> list[Point]:
    """All at their first value; all at their last; and from each of these every other value of one path alone."""
    found: dict[str, Point] = {}
    for end in (0, 1):
        corner = {axis.path: axis.ends[end] for axis in space}
        found.setdefault(at(corner), corner)
        for axis in space:
            for value in axis.listed() or axis.ends if not _many(axis) else axis.ends:
                point = {**corner, axis.path: value}
                found.setdefault(at(point), point)
    return list(found.values())


def _many(axis: Axis) -> bool:
    return len(axis.listed() or ()) > 20


def _concerned(meshes: Meshes, space: Sequence[Axis], corners: Sequence[Point], agent: str) -> list[str]:
    """The paths that change what an agent alone is: their value alone, changed at a corner, gives another mesh."""
    made = {at(point): to_json(meshes.alone(meshes.plan(point), agent).model_dump(mode="json")) for point in corners}
    found = set()
    for one in corners:
        for other in corners:
            differ = [path for path in one if one[path] != other[path]]
            if len(differ) == 1 and made[at(one)] != made[at(other)]:
                found.add(differ[0])
    return [axis.path for axis in space if axis.path in found]


def _refuse_unmeasured(meshes: Meshes, plan: Plan, point: Point) -> Checked:
    try:
        checked = meshes.check(plan)
    except MeshError as error:
        raise named(error, point) from None
    for stream, why in (("validation", "points are chosen by it"), ("test", "what is chosen is tested on it")):
        if stream not in checked.streams:
            what = f"this mesh has no {stream} split, and {why}"
            raise MeshError(what, where=f"data.{stream}", instead=f"{stream}: 0.2")
    return checked


def _check(
    meshes: Meshes,
    base: Checked,
    points: Sequence[Point],
    paths: Sequence[str] | None,
    agent: str,
    said: Callable[[int, int], None],
) -> None:
    """Plan every point before any is checked; then check each mesh, and each different control alone.

    ``paths``: those that concern the agent alone; None where there is no such control.
    """
    plans: list[Plan] = []
    seen: dict[str, Point] = {}
    alone: set[str] = set()
    for point in points:
        plans.append(plan := meshes.plan(point))
        text = to_json(plan.resolved().model_dump(mode="json"))
        if text in seen:
            raise MeshError(
                f"{words(point)} is the same mesh as {words(seen[text])}", where="--over", instead="each mesh once"
            )
        seen[text] = point
    for number, (point, plan) in enumerate(zip(points, plans, strict=True), 1):
        try:
            if (plan.task.name, plan.primary) != (plans[0].task.name, plans[0].primary):
                raise MeshError(
                    f"is judged by {plan.primary}, other points by {plans[0].primary}",
                    where="--over",
                    instead="paths that leave the metric as it is",
                )
            checked = meshes.check(plan)
            for stream in ("validation", "test"):
                same = checked.table is base.table or digest(checked.table) == digest(base.table)
                if not same or not alike(checked, base, stream):
                    raise MeshError(
                        f"the {stream} split has other samples than at the first point: figures would not compare",
                        where="--over",
                        instead="a path that leaves the data as they are",
                    )
            if paths is not None and (key := at({path: point[path] for path in paths})) not in alone:
                alone.add(key)
                meshes.check(make_plan(meshes.alone(plan, agent), registry()))
        except MeshError as error:
            raise named(error, point) from None
        said(number, len(points))


def _refuse_halving(eta: int, adaptive: bool, points: int, plans: Sequence[Plan]) -> None:
    if not eta:
        return
    if adaptive:
        raise MeshError("halving needs all of its points at once", where="--halving", instead="grid or --random")
    longest = min(shortest(plan.resolved()) for plan in plans)
    if len(rungs(points, eta, longest)) < 2:
        raise MeshError(
            f"{points} points, of which the shortest trains for {longest} epochs, cannot be divided by {eta}",
            where="--halving",
            instead="more points or epochs, or leave it out",
        )


def budgets(sweep: Sweep, meshes: Meshes) -> list[tuple[int, int]]:
    """The rungs of a sweep: of each how many points go in, and by what the budget is divided."""
    if not sweep.halving:
        return [(sweep.points, 1)]
    longest = min(shortest(meshes.plan(point).resolved()) for point in _corners(sweep.axes))
    return rungs(sweep.points, sweep.halving, longest)
