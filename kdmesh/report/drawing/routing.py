"""How arrows run between placed boxes, and where their labels stand: the best of a few curves, tried in order."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.cells import cell_len

from kdmesh.report.drawing.placing import LOW, SMALL, Box, label
from kdmesh.report.drawing.scene import Arrow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.report.drawing.placing import Placed
    from kdmesh.report.drawing.scene import Scene

Point = tuple[float, float]
Curve = tuple[Point, Point, Point, Point]
POINTS = 28  # of a curve that are looked at
BOWS = (0.0, 40.0, -40.0, 90.0, -90.0, 160.0, -160.0, 260.0, -260.0)
APART = 44.0  # between arrows that join the same boxes
MANY = 6  # arrows among a cluster's nodes that still have a label each
ALONG = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82)  # where on a curve its label may stand
FACING = {"bottom": (0.0, 1.0), "top": (0.0, -1.0), "right": (1.0, 0.0), "left": (-1.0, 0.0)}


@dataclass
class Route:
    """An arrow as a cubic curve, with its label's lines and box."""

    arrow: Arrow
    curve: Curve
    lines: list[str]
    box: Box


def route(scene: Scene, placed: Placed) -> list[Route]:
    """Draw every arrow, and put its label where it covers least; clusters are widened to hold those inside."""
    sides = {number: _sides(placed, arrow) for number, arrow in enumerate(scene.arrows)}
    curves: dict[int, Curve] = {}
    for _ in range(2):  # again, with ends in the order in which the first curves came
        curves = _curves(scene, placed, sides, _ports(scene, placed, sides, curves))
    routes = [Route(arrow, curves[number], [], Box(0, 0, 0, 0)) for number, arrow in enumerate(scene.arrows)]
    taken = list(placed.boxes.values())
    for one in routes:
        if one.arrow.source == one.arrow.target:
            one.lines = label(one.arrow)
            one.box = _beside(one)
            taken.append(one.box)
    lines = {number: _points(one.curve) for number, one in enumerate(routes)}
    for numbers, text in _labels(scene):
        found = []
        for number in numbers:
            others = [point for other, points in lines.items() if other not in numbers for point in points]
            found.append((*_label(curves[number], text, taken, others), number))
        _, box, number = min(found, key=lambda one: (one[0], one[2]))
        routes[number].lines, routes[number].box = text, box
        taken.append(box)
    home = {node.id: node.cluster for node in scene.nodes}
    for number, one in enumerate(routes):
        if home[one.arrow.source] and home[one.arrow.source] == home[one.arrow.target]:
            inside = [Box(x, y, 0, 0) for x, y in lines[number]] + ([one.box] if one.lines else [])
            for box in inside:
                _widen(placed.clusters[home[one.arrow.source]], box)
    return routes


def _curves(
    scene: Scene, placed: Placed, sides: dict[int, tuple[str, str]], ports: dict[int, tuple[Point, Point]]
) -> dict[int, Curve]:
    """A curve for every arrow."""
    between: dict[frozenset[str], list[int]] = defaultdict(list)
    for number, arrow in enumerate(scene.arrows):
        between[frozenset((arrow.source, arrow.target))].append(number)
    found: dict[int, Curve] = {}
    for number, arrow in enumerate(scene.arrows):
        same = between[frozenset((arrow.source, arrow.target))]
        if arrow.source == arrow.target:
            found[number] = _loop(placed.boxes[arrow.source], same.index(number), len(same))
        else:
            apart = APART * (same.index(number) - (len(same) - 1) / 2)
            found[number] = _curve(arrow, placed, ports[number], sides[number], apart)
    return found


def _widen(cluster: Box, box: Box) -> None:
    """Let a cluster hold a label, or a point of an arrow, inside it."""
    right = max(cluster.x + cluster.width, box.x + box.width + 8)
    bottom = max(cluster.y + cluster.height, box.y + box.height + 8)
    cluster.x, cluster.y = min(cluster.x, box.x - 8), min(cluster.y, box.y - 8)
    cluster.width, cluster.height = right - cluster.x, bottom - cluster.y


def _labels(scene: Scene) -> list[tuple[list[int], list[str]]]:
    """Labels, each with the arrows of which one bears it.

    Several alike share one: those that leave or reach one node, and where they are many, all among a cluster's nodes.
    """
    home = {node.id: node.cluster for node in scene.nodes}
    alike: dict[tuple[str, int, Arrow], list[int]] = defaultdict(list)
    for number, arrow in enumerate(scene.arrows):
        if arrow.source != arrow.target and arrow.lines:
            one = replace(arrow, source="", target="")
            for end, name in enumerate((arrow.target, arrow.source)):
                alike[name, end, one].append(number)
            if home[arrow.source] == home[arrow.target]:
                alike[home[arrow.source], 2, one].append(number)
    found: list[tuple[list[int], list[str]]] = []
    left = dict.fromkeys(number for numbers in alike.values() for number in numbers)
    for (_, kind, arrow), numbers in sorted(alike.items(), key=lambda item: -len(item[1])):
        numbers = [number for number in numbers if number in left]
        if len(numbers) > (MANY if kind == 2 else 2):
            found.append((numbers, [*label(arrow), f"({len(numbers)} arrows)"]))
            left = {number: None for number in left if number not in numbers}
    return [*found, *(([number], label(scene.arrows[number])) for number in left)]


def _sides(placed: Placed, arrow: Arrow) -> tuple[str, str]:
    """The sides of both boxes that an arrow joins: below and above each other, or side by side."""
    source, target = placed.boxes[arrow.source], placed.boxes[arrow.target]
    if source.y + source.height < target.y:
        return "bottom", "top"
    if target.y + target.height < source.y:
        return "top", "bottom"
    return ("right", "left") if source.x < target.x else ("left", "right")


def _ports(
    scene: Scene, placed: Placed, sides: dict[int, tuple[str, str]], curves: dict[int, Curve]
) -> dict[int, tuple[Point, Point]]:
    """Where arrows leave and reach their boxes: spread along a side, in the order of where they come from or go to.

    That is the other box, or, where ``curves`` were drawn before, their own ends.
    """
    at: dict[tuple[str, str], list[tuple[float, int, int]]] = defaultdict(list)
    for number, arrow in enumerate(scene.arrows):
        if arrow.source != arrow.target:
            for end, (name, other) in enumerate(((arrow.source, arrow.target), (arrow.target, arrow.source))):
                x, y = curves[number][1 + end] if curves else placed.boxes[other].middle
                side = sides[number][end]
                at[name, side].append((x if side in ("top", "bottom") else y, number, end))
    found: dict[int, dict[int, Point]] = defaultdict(dict)
    for (name, side), ends in at.items():
        box = placed.boxes[name]
        for place, (_, number, end) in enumerate(sorted(ends), start=1):
            part = place / (len(ends) + 1)
            across = (box.x + box.width * part, box.y if side == "top" else box.y + box.height)
            down = (box.x if side == "left" else box.x + box.width, box.y + box.height * part)
            found[number][end] = across if side in ("top", "bottom") else down
    return {number: (ends[0], ends[1]) for number, ends in found.items()}


def _curve(arrow: Arrow, placed: Placed, ends: tuple[Point, Point], sides: tuple[str, str], apart: float) -> Curve:
    """The first of some bows that runs over the fewest other boxes. ``apart``: from others between the same boxes."""
    (x0, y0), (x3, y3) = ends
    (dx0, dy0), (dx3, dy3) = FACING[sides[0]], FACING[sides[1]]
    reach = max(30.0, 0.45 * max(abs(x3 - x0) * abs(dx0), abs(y3 - y0) * abs(dy0)))
    upright = sides[0] in ("top", "bottom")
    others = [box for name, box in placed.boxes.items() if name not in (arrow.source, arrow.target)]
    best, least = None, float("inf")
    for bow in (apart + bow for bow in BOWS):
        aside = (bow, 0.0) if upright else (0.0, bow)
        curve = (
            (x0, y0),
            (x0 + dx0 * reach + aside[0], y0 + dy0 * reach + aside[1]),
            (x3 + dx3 * reach + aside[0], y3 + dy3 * reach + aside[1]),
            (x3, y3),
        )
        over = sum(box.holds(x, y, 5.0) for x, y in _points(curve)[1:-1] for box in others)
        if over < least:
            best, least = curve, over
        if not over:
            break
    assert best is not None
    return best


def _loop(box: Box, number: int, of: int) -> Curve:
    """One of so many arrows from a box to itself, at its right."""
    high, x = box.height / of, box.x + box.width
    top, bottom = box.y + (number + 0.25) * high, box.y + (number + 0.75) * high
    return (x, bottom), (x + 44, bottom + 6), (x + 44, top - 6), (x, top)


def _beside(one: Route) -> Box:
    """The label of an arrow from a box to itself stands beside it."""
    x, y = _at(one.curve, 0.5)
    high = len(one.lines) * LOW
    return Box(x + 6, y - high / 2, max(map(cell_len, one.lines), default=0) * SMALL, high)


def _label(curve: Curve, text: Sequence[str], taken: Sequence[Box], lines: Sequence[Point]) -> tuple[float, Box]:
    """The place on a curve where a label covers fewest boxes and labels, and then fewest lines, after its cost."""
    width, height = max(map(cell_len, text)) * SMALL + 6, len(text) * LOW + 2
    found = []
    for number, along in enumerate(ALONG):
        x, y = _at(curve, along)
        for aside in (0.0, 0.3 * width, -0.3 * width, 0.55 * width, -0.55 * width):
            box = Box(x + aside - width / 2, y - height / 2, width, height)
            covered = sum(box.meets(other, 2.0) for other in taken)
            crossed = sum(box.holds(*point) for point in lines)
            found.append((1000 * covered + 20 * crossed + number + abs(aside) / 10, box))
    return min(found, key=lambda one: one[0])


def _at(curve: Curve, t: float) -> Point:
    """A point of a cubic curve."""
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    return (
        sum(weight * point[0] for weight, point in zip(weights, curve, strict=True)),
        sum(weight * point[1] for weight, point in zip(weights, curve, strict=True)),
    )


def _points(curve: Curve) -> list[Point]:
    return [_at(curve, number / (POINTS - 1)) for number in range(POINTS)]
