"""The drawing as SVG without Graphviz: what a page embeds, and what a plain install can write.

Its colours are CSS variables with a light and a dark set; a page that embeds it may set them otherwise. A reader of the
screen is given title and description, in which every arrow stands in words.
"""

from __future__ import annotations

import re
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING

from rich.cells import cell_len

from kdmesh.errors import printable
from kdmesh.report.drawing.placing import CELL, LINE, LOW, PAD, STACK, Box, place
from kdmesh.report.drawing.routing import Route, route
from kdmesh.report.layout import wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kdmesh.report.drawing.placing import Placed
    from kdmesh.report.drawing.scene import Node, Scene

MARGIN = 20.0
HEAD = 21.0  # height of a line of the heading
LEAST = 460.0  # width, so that a small drawing's heading has room
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

STYLE = """
.kdmesh{--page:#ffffff;--ink:#1b2430;--soft:#55606e;--line:#5b6775;--stage:#f2f4f7;--edge:#b9c2cc;--agent:#dcebfb;
--agent-edge:#2b6cb0;--rule:#fdedc8;--rule-edge:#9a6700;--frozen:#e4e7ea;--frozen-edge:#5f6873;--secret:#a3195b;
font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:13px}
@media (prefers-color-scheme:dark){.kdmesh{--page:#12161c;--ink:#e8edf3;--soft:#a9b4c0;--line:#9aa7b5;--stage:#1b222b;
--edge:#465260;--agent:#173554;--agent-edge:#6fb1f5;--rule:#453410;--rule-edge:#e5b84b;--frozen:#2b323a;
--frozen-edge:#98a4b1;--secret:#f47fb2}}
.kdmesh .page{fill:var(--page)}.kdmesh text{fill:var(--ink)}.kdmesh .name{font-weight:600}
.kdmesh .head{font-weight:600;font-size:17px}.kdmesh .soft{fill:var(--soft)}
.kdmesh .stage{fill:var(--stage);stroke:var(--edge)}
.kdmesh .box{fill:var(--agent);stroke:var(--agent-edge);stroke-width:1.4}
.kdmesh .consensus .box{fill:var(--rule);stroke:var(--rule-edge)}
.kdmesh .frozen .box{fill:var(--frozen);stroke:var(--frozen-edge);stroke-dasharray:5 3}
.kdmesh .private .inner{fill:none;stroke:var(--secret);stroke-width:1.6}
.kdmesh .arrow{fill:none;stroke:var(--line);stroke-width:1.4}.kdmesh .arrow.input{stroke-dasharray:2 3}
.kdmesh .arrow.follows{stroke-dasharray:7 3 2 3}.kdmesh .arrow.private{stroke:var(--secret)}
.kdmesh .tip{fill:var(--line)}.kdmesh .said{font-size:11.5px}.kdmesh .under{fill:var(--page)}
.kdmesh .under.within{fill:var(--stage)}
"""


def svg(scene: Scene) -> str:
    """Return the drawing as one SVG element, the same for the same scene."""
    placed = place(scene)
    routes = route(scene, placed)
    extent = [*placed.boxes.values(), *placed.clusters.values(), *(one.box for one in routes if one.lines)]
    extent += [Box(x, y, 0, 0) for one in routes for x, y in one.curve[1:3]]
    left = min(box.x for box in extent)
    width = max(max(box.x + box.width for box in extent) - left, LEAST)
    least = min(box.y for box in extent)
    height = max(box.y + box.height for box in extent) - least
    cells = int(width / CELL)
    head = wrap(scene.name, int(cells * 0.75))
    about = [line for text in (scene.description, scene.summary) if text for line in wrap(text, cells)]
    foot = wrap("; ".join(legend(scene)), cells) if legend(scene) else []
    top = MARGIN + HEAD * len(head) + LINE * len(about) + 14
    whole = width + 2 * MARGIN, top + height + (LINE * len(foot) + 12 if foot else 0) + MARGIN
    key = "kdmesh-" + sha256(repr(scene).encode("utf-8", "backslashreplace")).hexdigest()[:10]
    centred = (width - max(box.x + box.width for box in extent) + left) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="kdmesh" role="img" aria-labelledby="{key}-title {key}-desc" '
        f'viewBox="0 0 {_n(whole[0])} {_n(whole[1])}" width="{_n(whole[0])}" height="{_n(whole[1])}">',
        f'<title id="{key}-title">{xml(f"Topology of {scene.name}")}</title>',
        f'<desc id="{key}-desc">{xml(told(scene))}</desc>',
        f"<style>{STYLE}</style>",
        f'<defs><marker id="{key}-tip" class="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        'markerHeight="8" orient="auto-start-reverse"><path d="M0 0.8 10 5 0 9.2z"/></marker></defs>',
        f'<rect class="page" width="{_n(whole[0])}" height="{_n(whole[1])}"/>',
        *_text(head, MARGIN, MARGIN, HEAD, "head"),
        *_text(about, MARGIN, MARGIN + HEAD * len(head), LINE, "soft"),
        f'<g transform="translate({_n(MARGIN - left + centred)} {_n(top - least)})">',
        *(_rect(placed.clusters[cluster.id], "stage", 8) for cluster in scene.clusters),
        *(_arrow(one, key) for one in routes),
        *_headings(scene, placed),
        *(part for node in scene.nodes for part in _node(node, placed)),
        *(part for one in routes for part in _said(one, placed)),
        "</g>",
        *_text(foot, MARGIN, top + height + 12, LINE, "soft"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def told(scene: Scene) -> str:
    """The whole drawing in words."""
    title = {node.id: node.title for node in scene.nodes}
    found = [scene.description, f"{scene.summary}."]
    found += [f"{node.title}: {', '.join(node.lines)}." for node in scene.nodes]
    for arrow in scene.arrows:
        way = "and" if arrow.both else "to"
        found.append(f"{title[arrow.source]} {way} {title[arrow.target]}: {', '.join(arrow.lines)}.")
    return "\n".join(part for part in found if part)


def legend(scene: Scene) -> list[str]:
    """What the marks mean that occur in this drawing."""
    kinds = {arrow.kind for arrow in scene.arrows}
    return [
        text
        for text, shown in (
            ("round ends: a consensus", any(node.kind == "consensus" for node in scene.nodes)),
            ("dashed box: frozen", any(node.frozen for node in scene.nodes)),
            ("double border: sees private samples", any(node.private for node in scene.nodes)),
            ("coloured arrow: made of private samples", any(arrow.private for arrow in scene.arrows)),
            ("dotted arrow: is seen by an agent, or informs a rule or a gate", "input" in kinds),
            ("dashes and dots: weights, not a flow", "follows" in kinds),
        )
        if shown
    ]


def xml(text: str) -> str:
    """Text for XML: what has a meaning there is escaped; what may not stand there, or would turn the direction of
    writing, is written as an escape.
    """
    return escape(NO_XML.sub(lambda one: one[0].encode("unicode_escape").decode(), printable(text)))


def _n(value: float) -> str:
    """A coordinate to a tenth, so that drawings do not differ by rounding."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def _text(lines: Iterable[str], x: float, y: float, height: float, kind: str, anchor: str = "start") -> list[str]:
    """Lines of text, the first just below ``y``."""
    return [
        f'<text class="{kind}" x="{_n(x)}" y="{_n(y + height * (number + 0.75))}" text-anchor="{anchor}">'
        f"{xml(line)}</text>"
        for number, line in enumerate(lines)
    ]


def _headings(scene: Scene, placed: Placed) -> list[str]:
    found = []
    for cluster in scene.clusters:
        box = placed.clusters[cluster.id]
        under = Box(box.x + PAD - 3, box.y + 5, cell_len(cluster.title) * CELL + 6, LINE)
        found += [_rect(under, "under within", 3), *_text([cluster.title], box.x + PAD, box.y + 5, LINE, "soft")]
    return found


def _rect(box: Box, kind: str, radius: float, inside: float = 0.0) -> str:
    x, y, width, height = box.x + inside, box.y + inside, box.width - 2 * inside, box.height - 2 * inside
    return (
        f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" '
        f'rx="{_n(max(2.0, radius - inside))}"/>'
    )


def _node(node: Node, placed: Placed) -> list[str]:
    """A box with its text; one that stands for several has others behind it."""
    outer, kinds = placed.boxes[node.id], [node.kind, *(word for word in ("frozen", "private") if getattr(node, word))]
    steps = (STACK, STACK / 2, 0.0) if len(node.members) > 1 else (0.0,)
    width, height = outer.width - steps[0], outer.height - steps[0]
    *behind, box = (Box(outer.x + step, outer.y + step, width, height) for step in steps)
    radius = height / 2 if node.kind == "consensus" else 6.0
    x, titles = box.middle[0], placed.titles[node.id]
    top = box.y + 0.7 * PAD
    return [
        f'<g class="{" ".join(kinds)}">',
        *(_rect(one, "box", radius) for one in behind),
        _rect(box, "box", radius),
        *([_rect(box, "inner", radius, 3.0)] if node.private else []),
        *_text(titles, x, top, LINE, "name", "middle"),
        *_text(placed.lines[node.id], x, top + LINE * len(titles), LINE, "fact", "middle"),
        "</g>",
    ]


def _arrow(one: Route, key: str) -> str:
    points = [f"{_n(x)} {_n(y)}" for x, y in one.curve]
    kind = one.arrow.kind + (" private" if one.arrow.private else "")
    back = f' marker-start="url(#{key}-tip)"' if one.arrow.both else ""
    return f'<path class="arrow {kind}" d="M{points[0]}C{" ".join(points[1:])}" marker-end="url(#{key}-tip)"{back}/>'


def _said(one: Route, placed: Placed) -> Sequence[str]:
    """An arrow's label, on a patch that hides the arrow below it."""
    if not one.lines:
        return ()
    middle = one.box.middle
    within = any(box.holds(*middle) for box in placed.clusters.values())
    loop = one.arrow.source == one.arrow.target
    x, anchor = (one.box.x, "start") if loop else (middle[0], "middle")
    patch = () if loop else (_rect(one.box, "under within" if within else "under", 3),)
    return *patch, *_text(one.lines, x, one.box.y, LOW, "said", anchor)
