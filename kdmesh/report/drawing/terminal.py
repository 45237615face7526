"""The drawing as text for a terminal: boxes by stage from the start down, and below each its arrows."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from kdmesh.report.drawing.placing import blocks_of
from kdmesh.report.layout import PIPE, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kdmesh.report.drawing.scene import Arrow, Node, Scene

LEAST = 24  # cells; what is narrower is drawn as if it had so many
BORDERS = {  # corners from the upper left clockwise, then across, down
    "agent": ("╭╮╯╰", "─", "│"),
    "consensus": ("╔╗╝╚", "═", "║"),
    "frozen": ("╭╮╯╰", "┄", "┆"),
    "private": ("┏┓┛┗", "━", "┃"),
}
COLOURS = {"agent": "cyan", "consensus": "yellow", "frozen": "dim", "private": "magenta"}
ARROWS = {"target": "──▶", "input": "┄┄▶", "follows": "· ·▶"}
ASCII = str.maketrans("╭╮╯╰╔╗╝╚┏┓┛┗─━│┃═║┄┆▶◀·×", "++++++++++++--||=|.:><.x")


def terminal(scene: Scene, width: int = PIPE, ascii: bool = False) -> Text:
    """Return the drawing in lines of at most ``width`` cells; ``ascii``: for terminals that have no block characters.

    Colours are styles of the text: `Text.plain` is without.
    """
    width = max(width, LEAST)
    out = Text(no_wrap=True)
    _add(out, wrap(scene.name, width), "bold")
    _add(out, [line for text in (scene.description, scene.summary) if text for line in wrap(text, width)], "dim")
    rows, block_of = blocks_of(scene)
    headings = {cluster.id: cluster.title for cluster in scene.clusters}
    title = {node.id: node.title for node in scene.nodes}
    for block in (block for row in rows for block in row):
        out.append("\n")
        if block in headings:
            _add(out, wrap(headings[block], width), "bold")
        _boxes(out, [node for node in scene.nodes if block_of[node.id] == block], width)
        for sources, targets, arrow in _bundles([one for one in scene.arrows if block_of[one.source] == block]):
            _add(out, _said(sources, targets, arrow, title, width), "magenta" if arrow.private else "")
    out.rstrip()
    out.append("\n")
    return Text(out.plain.translate(ASCII), spans=out.spans) if ascii else out


def _add(out: Text, lines: Iterable[str], style: str = "") -> None:
    for line in lines:
        out.append(line.rstrip(), style)
        out.append("\n")


def _kind(node: Node) -> str:
    return "private" if node.private else "frozen" if node.frozen else node.kind


def _boxes(out: Text, nodes: Sequence[Node], width: int) -> None:
    """Boxes beside each other as far as they fit."""
    row: list[tuple[str, list[str]]] = []
    for node in nodes:
        box = _box(node, width)
        if row and sum(cell_len(lines[0]) + 1 for _, lines in (*row, (_kind(node), box))) > width + 1:
            _row(out, row)
            row = []
        row.append((_kind(node), box))
    _row(out, row)


def _box(node: Node, width: int) -> list[str]:
    """A box in lines of the same width."""
    corners, across, down = BORDERS[_kind(node)]
    lines = [line for text in (node.title, *node.lines) for line in wrap(text, width - 4)]
    wide = max(map(cell_len, lines))
    return [
        corners[0] + across * (wide + 2) + corners[1],
        *(f"{down} {line}{' ' * (wide - cell_len(line))} {down}" for line in lines),
        corners[3] + across * (wide + 2) + corners[2],
    ]


def _row(out: Text, row: Sequence[tuple[str, list[str]]]) -> None:
    for line in zip_longest(*(lines for _, lines in row)):
        kept = max(number for number, part in enumerate(line) if part is not None)
        for (kind, lines), part in zip(row[: kept + 1], line, strict=False):
            out.append(part if part is not None else " " * cell_len(lines[0]), COLOURS[kind] if part else "")
            out.append(" " if part is not line[kept] else "")
        out.append("\n")


def _bundles(arrows: Sequence[Arrow]) -> list[tuple[list[str], list[str], Arrow]]:
    """Arrows that say the same as one: sources, targets and one of them."""
    by_target: dict[tuple[object, ...], list[Arrow]] = {}
    for arrow in arrows:
        by_target.setdefault((arrow.target, arrow.lines, arrow.kind, arrow.both, arrow.private), []).append(arrow)
    found: dict[tuple[object, ...], tuple[list[str], list[str], Arrow]] = {}
    for (target, *rest), same in by_target.items():
        sources = [arrow.source for arrow in same]
        found.setdefault((*sources, *rest), (sources, [], same[0]))[1].append(str(target))
    return list(found.values())


def _said(sources: list[str], targets: list[str], arrow: Arrow, title: dict[str, str], width: int) -> list[str]:
    """Arrows in words: from whom to whom, and what they carry."""
    head = ("◀" if arrow.both else "") + ARROWS[arrow.kind]
    if sources == targets:
        who = f"{title[sources[0]]} {head} itself"
    else:
        who = f"{', '.join(title[name] for name in sources)} {head} {', '.join(title[name] for name in targets)}"
    return [*wrap(f"  {who}", width, "  "), *wrap(f"    {'; '.join(arrow.lines)}", width)]
