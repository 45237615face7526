"""Where everything stands in a drawing without Graphviz: boxes in layers, by stage and longest path.

Blocks, which are clusters or nodes outside any, stand in rows by their longest path from the start; inside a cluster
the same holds for its nodes. Nodes that teach each other stand in two rows, so that a ring is one. Units are pixels.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import networkx as nx
from rich.cells import cell_len

from kdmesh.report.layout import wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kdmesh.report.drawing.scene import Arrow, Node, Scene

CELL, LINE = 7.4, 18.0  # width of a character and height of a line of the nodes' text
SMALL, LOW = 6.2, 15.0  # the same of arrows' labels
WORDS, LABEL = 40, 32  # characters after which a node's line, and a label's, goes on in the next
PAD, TITLE = 12.0, 26.0  # inside a box, and of a cluster's heading
ACROSS, DOWN, BESIDE = 40.0, 56.0, 60.0  # gaps between boxes of a row, and, with a label, between rows and in a row
STACK = 8.0  # by how much others look out behind the box of several nodes
WIDE = 1300.0  # a row that is wider goes on below


@dataclass
class Box:
    """A rectangle by its top left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return self.x + self.width / 2, self.y + self.height / 2

    def holds(self, x: float, y: float, margin: float = 0.0) -> bool:
        """Whether a point is inside, or as near as ``margin``."""
        return (
            self.x - margin < x < self.x + self.width + margin and self.y - margin < y < self.y + self.height + margin
        )

    def meets(self, other: Box, margin: float = 0.0) -> bool:
        """Whether two rectangles overlap, or are as near as ``margin``."""
        return (
            self.x - margin < other.x + other.width
            and other.x - margin < self.x + self.width
            and self.y - margin < other.y + other.height
            and other.y - margin < self.y + self.height
        )


@dataclass
class Placed:
    """Boxes of nodes and clusters by id, their text in lines that fit, and the size of it all."""

    titles: dict[str, list[str]]
    lines: dict[str, list[str]]
    boxes: dict[str, Box] = field(default_factory=dict)
    clusters: dict[str, Box] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


def place(scene: Scene) -> Placed:
    """Give every node and cluster its place."""
    titles = {node.id: _lines([node.title], WORDS - 4) for node in scene.nodes}
    placed = Placed(titles, {node.id: _lines(node.lines, WORDS) for node in scene.nodes})
    for node in scene.nodes:
        placed.boxes[node.id] = _box(placed, node)
    rows, block_of = blocks_of(scene)
    heading = {cluster.id: cell_len(cluster.title) * CELL + 2 * PAD for cluster in scene.clusters}
    blocks: dict[str, Box] = {}
    inside: dict[str, list[Node]] = defaultdict(list)
    for node in scene.nodes:
        inside[block_of[node.id]].append(node)
    for block, nodes in inside.items():
        blocks[block] = _block(nodes, scene.arrows, placed, heading.get(block))
    down = _down(arrow for arrow in scene.arrows if block_of[arrow.source] != block_of[arrow.target])
    placed.width, placed.height = _stack(rows, blocks, lambda row: ACROSS, down)
    for block, nodes in inside.items():
        for node in nodes:
            placed.boxes[node.id].x += blocks[block].x
            placed.boxes[node.id].y += blocks[block].y
        if block in heading:
            placed.clusters[block] = blocks[block]
    return placed


def blocks_of(scene: Scene) -> tuple[list[list[str]], dict[str, str]]:
    """Return the rows of blocks, from the start down, and the block of each node: its cluster, or itself."""
    block_of = {node.id: node.cluster or node.id for node in scene.nodes}
    between = nx.DiGraph()
    between.add_nodes_from(block_of.values())
    between.add_edges_from(
        (block_of[arrow.source], block_of[arrow.target])
        for arrow in scene.arrows
        if block_of[arrow.source] != block_of[arrow.target]
    )
    return _ordered(_rows(between), between), block_of


def _lines(texts: Iterable[str], cells: int) -> list[str]:
    return [line for text in texts for line in wrap(text, cells)]


def _box(placed: Placed, node: Node) -> Box:
    """A node's box, as large as its text."""
    titles, lines = placed.titles[node.id], placed.lines[node.id]
    widest = max([cell_len(text) * (CELL + 0.8) for text in titles] + [cell_len(text) * CELL for text in lines])
    ends = 2.0 if node.kind == "consensus" else 1.0  # which is round at its ends
    behind = STACK if len(node.members) > 1 else 0.0
    high = (len(titles) + len(lines)) * LINE + 1.4 * PAD
    return Box(0, 0, max(110.0, widest + 2 * PAD * ends) + behind, high + behind)


def _block(nodes: Sequence[Node], arrows: Sequence[Arrow], placed: Placed, heading: float | None) -> Box:
    """Place the nodes of a block in it; returns its size. ``heading``: the width of its title, None: no frame."""
    ids = {node.id for node in nodes}
    inner = [arrow for arrow in arrows if {arrow.source, arrow.target} <= ids]
    graph = nx.DiGraph()
    graph.add_nodes_from(node.id for node in nodes)
    formed = {node.id for node in nodes if node.kind == "consensus"}
    first = {arrow.target for arrow in arrows if arrow.target in formed and arrow.source not in ids}
    graph.add_edges_from(
        (a.source, a.target) for a in inner if a.source != a.target and not _back(a, formed, first, inner)
    )
    graph.add_edges_from((a.target, a.source) for a in inner if a.both)
    rows = _ordered(_rows(graph, two=True), graph)
    pairs: dict[frozenset[str], int] = {}
    for arrow in inner:  # there may be several between two nodes
        ends = frozenset((arrow.source, arrow.target))
        pairs[ends] = max([pairs.get(ends, 0), *map(cell_len, label(arrow))])
    boxes = {node.id: placed.boxes[node.id] for node in nodes}

    def gap(row: Sequence[str]) -> float:
        beside = [pairs[pair] for pair in map(frozenset, pairwise(row)) if pair in pairs]
        return max([ACROSS, *(BESIDE + cells * SMALL for cells in beside)])

    width, height = _stack(rows, boxes, gap, _down(inner))
    right = 0.0
    for arrow in inner:
        if arrow.source == arrow.target:
            box, said = boxes[arrow.source], max(map(cell_len, label(arrow)), default=0)
            right = max(right, box.x + box.width + 50 + said * SMALL - width)
    if heading is None:
        return Box(0, 0, width + right, height)
    wide = max(width + right + 2 * PAD, heading)
    shift = (wide - width - right) / 2
    for box in boxes.values():
        box.x += shift
        box.y += TITLE + PAD / 2
    return Box(0, 0, wide, height + TITLE + 1.5 * PAD)


def _down(arrows: Iterable[Arrow]) -> float:
    """The gap between rows, in which the highest label of these arrows has room."""
    return DOWN + LOW * max((len(label(arrow)) for arrow in arrows if arrow.source != arrow.target), default=1)


def _back(arrow: Arrow, formed: set[str], first: set[str], inner: Sequence[Arrow]) -> bool:
    """Whether an arrow leads back up: between a consensus and an agent that hears it and gives to it.

    The consensus stands above those agents if it is among the ``first``, to which others give too, else below.
    """
    node = arrow.source if arrow.source in formed else arrow.target
    if node not in formed or not any((one.source, one.target) == (arrow.target, arrow.source) for one in inner):
        return False
    return arrow.target == node if node in first else arrow.source == node


def label(arrow: Arrow) -> list[str]:
    """An arrow's label in lines that fit."""
    return _lines(arrow.lines, LABEL)


def _rows(graph: nx.DiGraph, two: bool = False) -> list[list[str]]:
    """Nodes in rows by their longest path from the start; ``two``: those that are in a circle in two rows.

    A node that nothing leads to stands right above the first that it leads to.
    """
    whole = nx.condensation(graph, scc=_sorted(graph))
    order = list(nx.lexicographical_topological_sort(whole))
    high = {part: 2 if two and len(whole.nodes[part]["members"]) > 2 else 1 for part in order}
    level: dict[int, int] = {}
    for part in order:
        level[part] = max((level[before] + high[before] for before in whole.predecessors(part)), default=0)
    for part in order:
        if not list(whole.predecessors(part)) and list(whole.successors(part)):
            level[part] = min(level[after] for after in whole.successors(part)) - high[part]
    rows: dict[int, list[str]] = defaultdict(list)
    place = {name: number for number, name in enumerate(graph)}
    for part in sorted(order, key=lambda part: min(place[name] for name in whole.nodes[part]["members"])):
        members = sorted(whole.nodes[part]["members"], key=place.__getitem__)
        if high[part] == 1:
            rows[level[part]] += members
        else:  # clockwise
            rows[level[part]] += members[: len(members) // 2]
            rows[level[part] + 1] += members[len(members) // 2 :][::-1]
    return [rows[number] for number in sorted(rows)]


def _sorted(graph: nx.DiGraph) -> list[set[str]]:
    """The strongly connected parts, in the order of the nodes, so that a drawing is the same every time."""
    place = {name: number for number, name in enumerate(graph)}
    return sorted(nx.strongly_connected_components(graph), key=lambda part: min(map(place.__getitem__, part)))


def _ordered(rows: list[list[str]], graph: nx.DiGraph) -> list[list[str]]:
    """Each row, from the second on, in the order of what stands above it."""
    at: dict[str, float] = {}
    found = []
    for row in rows:
        aim = {}
        for number, name in enumerate(row):
            above = [at[other] for other in graph.predecessors(name) if other in at]
            aim[name] = sum(above) / len(above) if above else (number + 0.5) / len(row)
        circle = any(graph.has_edge(a, b) for a in row for b in row)  # is in order already
        row = row if circle else sorted(row, key=aim.__getitem__)
        at.update((name, (number + 0.5) / len(row)) for number, name in enumerate(row))
        found.append(row)
    return found


def _stack(
    rows: Sequence[Sequence[str]], boxes: dict[str, Box], gap: Callable[[Sequence[str]], float], down: float
) -> tuple[float, float]:
    """Put boxes in rows, each centred, one row ``down`` below the other; too wide ones are broken. Returns the size."""
    broken: list[tuple[list[str], float]] = []
    for row in rows:
        line: list[str] = []
        for name in row:
            if line and sum(boxes[one].width + gap(row) for one in (*line, name)) > WIDE:
                broken.append((line, gap(row)))
                line = []
            line.append(name)
        broken.append((line, gap(row)))
    widths = [sum(boxes[name].width for name in line) + between * (len(line) - 1) for line, between in broken]
    width, y = max(widths), 0.0
    for (line, between), own in zip(broken, widths, strict=True):
        x = (width - own) / 2
        high = max(boxes[name].height for name in line)
        for name in line:
            boxes[name].x, boxes[name].y = x, y + (high - boxes[name].height) / 2
            x += boxes[name].width + between
        y += high + down
    return width, y - down
