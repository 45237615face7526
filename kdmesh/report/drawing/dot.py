"""The drawing in DOT, the language of Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdmesh.report.drawing.scene import Arrow, Node, Scene

FONT = 'fontname="DejaVu Sans,Helvetica,Arial,sans-serif"'
FORMS = {  # of nodes, and the same for each kind; `class` is for the style of an SVG
    "agent": 'shape=box, style="{style}filled", fillcolor="#dcebfb", color="#2b6cb0"',
    "consensus": 'shape=box, style="rounded,{style}filled", fillcolor="#fdedc8", color="#9a6700"',
    "frozen": 'shape=box, style="{style}filled", fillcolor="#e4e7ea", color="#5f6873"',
}
ARROWS = {"target": "solid", "input": "dotted", "follows": "dashed"}


def dot(scene: Scene) -> str:
    """Return the drawing as DOT text."""
    lines = [
        f"digraph {quoted(scene.name)} {{",
        f'  graph [rankdir=TB, {FONT}, fontsize=11, labelloc=t, labeljust=l, label="{_left(_heading(scene))}"]',
        f'  node [{FONT}, fontsize=11, margin="0.15,0.08"]',
        f'  edge [{FONT}, fontsize=9, color="#5b6775"]',
    ]
    for cluster in scene.clusters:
        lines.append(f"  subgraph cluster_{cluster.id} {{")
        lines.append(f'    graph [label={quoted(cluster.title)}, style="rounded,filled", fillcolor="#f2f4f7", ')
        lines[-1] += 'color="#b9c2cc", class="stage"]'
        lines += [f"    {_node(node)}" for node in scene.nodes if node.cluster == cluster.id]
        lines.append("  }")
    lines += [f"  {_node(node)}" for node in scene.nodes if not node.cluster]
    lines += [f"  {_arrow(arrow)}" for arrow in scene.arrows]
    return "\n".join([*lines, "}"]) + "\n"


def _heading(scene: Scene) -> list[str]:
    return [part for part in (scene.name, scene.description, scene.summary) if part]


def quoted(*lines: str) -> str:
    """Lines as one DOT string."""
    return '"' + "\\n".join(map(escaped, lines)) + '"'


def escaped(text: str) -> str:
    """Text inside a DOT string: quotes and backslashes have a meaning there, and so have HTML's entities."""
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def _left(lines: list[str]) -> str:
    return "".join(f"{escaped(line)}\\l" for line in lines)


def _node(node: Node) -> str:
    form = "frozen" if node.frozen else node.kind
    classes = f"{form} private" if node.private else form
    borders = 2 if node.private else 3 if len(node.members) > 1 else 1
    more = f', class="{classes}"' + (f", peripheries={borders}" if borders > 1 else "")
    style = FORMS[form].format(style="dashed," if node.frozen else "")
    return f"{node.id} [label={quoted(node.title, *node.lines)}, {style}{more}]"


def _arrow(arrow: Arrow) -> str:
    said = [f"style={ARROWS[arrow.kind]}"]
    said += [f"label={quoted(*(f' {line} ' for line in arrow.lines))}"] if arrow.lines else []  # clear of the line
    said += ["dir=both"] if arrow.both else []
    said += ['color="#a3195b", class="private"'] if arrow.private else []
    said += ["constraint=false"] if arrow.kind == "follows" else []
    return f"{arrow.source} -> {arrow.target} [{', '.join(said)}]"
