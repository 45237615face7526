"""The drawing as a Mermaid flowchart, which GitHub and other sites draw where it stands in Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.report.drawing.scene import Node, Scene

LINKS = {"target": "-->", "input": "-.->", "follows": "-.->"}
OTHER = re.compile(r"[^\w .,:;/()\[\]{}+×=@~*-]")  # what has a meaning in Mermaid, HTML or Markdown
STYLES = (
    "classDef agent fill:#dcebfb,stroke:#2b6cb0,color:#1b2430",
    "classDef consensus fill:#fdedc8,stroke:#9a6700,color:#1b2430",
    "classDef frozen fill:#e4e7ea,stroke:#5f6873,color:#1b2430,stroke-dasharray:5 3",
    "classDef private stroke:#a3195b,stroke-width:3px",
)


def mermaid(scene: Scene) -> str:
    """Return the drawing as Mermaid text."""
    lines = ["flowchart TB", f"  accTitle: {_plain(f'Topology of {scene.name}')}"]
    about = " ".join(part for part in (scene.description, scene.summary) if part)
    lines.append(f"  accDescr: {_plain(about)}")
    for cluster in scene.clusters:
        lines.append(f"  subgraph {cluster.id}[{quoted(cluster.title)}]")
        lines += [f"    {_node(node)}" for node in scene.nodes if node.cluster == cluster.id]
        lines.append("  end")
    lines += [f"  {_node(node)}" for node in scene.nodes if not node.cluster]
    for arrow in scene.arrows:
        link = f"<{LINKS[arrow.kind]}" if arrow.both else LINKS[arrow.kind]
        said = f"|{quoted(*arrow.lines)}|" if arrow.lines else ""
        lines.append(f"  {arrow.source} {link}{said} {arrow.target}")
    private = [str(number) for number, arrow in enumerate(scene.arrows) if arrow.private]
    lines += [f"  {style}" for style in STYLES]
    lines += [f"  linkStyle {','.join(private)} stroke:#a3195b"] if private else []
    return "\n".join(lines) + "\n"


def quoted(*lines: str) -> str:
    """Lines as one Mermaid text in quotes."""
    return '"' + "<br/>".join(map(escaped, lines)) + '"'


def escaped(text: str) -> str:
    """Text inside Mermaid's quotes: whatever may have a meaning is written as the number of its character.

    A full stop after a number that begins a line would begin a list.
    """
    return re.sub(r"^(\d+)\.", r"\1#46;", OTHER.sub(lambda one: f"#{ord(one[0])};", text))


def _plain(text: str) -> str:
    """Text of a line without quotes, where nothing is escaped: what may have a meaning is left out."""
    return re.sub(r"\s+", " ", re.sub(r"[^\w .,:()-]", " ", text)).strip()


def _node(node: Node) -> str:
    classes: Sequence[str] = ["frozen" if node.frozen else node.kind, *(["private"] if node.private else [])]
    left, right = ("([", "])") if node.kind == "consensus" else ("[[", "]]") if len(node.members) > 1 else ("[", "]")
    text = quoted(node.title, *node.lines)
    return f"{node.id}{left}{text}{right}:::{classes[0]}" + (f"\n    class {node.id} private" if node.private else "")
