"""A plan's drawing in a format by its name, or by the ending of the file that is to hold it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.files import refuse_path, write
from kdmesh.report.drawing.scene import scene
from kdmesh.report.layout import PIPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.graph.plan import Plan

FORMATS = ("terminal", "svg", "png", "mermaid", "dot")
ENDINGS = {
    ".txt": "terminal",
    ".svg": "svg",
    ".png": "png",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
}


def format_of(path: Path, where: str = "-o") -> str:
    """The format that a file's ending names."""
    if path.suffix.lower() not in ENDINGS:
        what = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        instead = f"one of {', '.join(ENDINGS)}, or name the format: {', '.join(FORMATS)}"
        raise MeshError(f"{str(path)!r} {what}, which names no format", where=where, instead=instead)
    return ENDINGS[path.suffix.lower()]


def refuse_layout(form: str, where: str) -> None:
    """Refuse to let Graphviz lay out what is no picture."""
    if form not in ("svg", "png"):
        what = f"Graphviz lays out pictures, and {form} is text"
        raise MeshError(what, where=where, instead="leave it out, or the format svg or png")


def draw(
    plan: Plan,
    form: str = "terminal",
    *,
    graphviz: bool = False,
    width: int = PIPE,
    parameters: Mapping[str, int] | None = None,
) -> str | bytes:
    """Return a drawing of a plan: text, or bytes where ``form`` is png.

    ``graphviz``: an SVG laid out by Graphviz, as a PNG always is; ``width``: of text for a terminal; ``parameters``:
    how many each agent has, of a run. Raises MeshError for an unknown format, and where Graphviz is not installed.
    """
    if form not in FORMATS:
        raise MeshError(f"no format {form!r}", where="format", instead=f"one of: {', '.join(FORMATS)}")
    if graphviz:
        refuse_layout(form, "graphviz")
    drawn = scene(plan, parameters)
    if form == "terminal":
        from kdmesh.report.drawing.terminal import terminal

        return terminal(drawn, width).plain
    if form == "mermaid":
        from kdmesh.report.drawing.mermaid import mermaid

        return mermaid(drawn)
    if form == "dot":
        from kdmesh.report.drawing.dot import dot

        return dot(drawn)
    if form == "png" or graphviz:
        from kdmesh.report.drawing import graphviz as laid_out

        return laid_out.png(drawn) if form == "png" else laid_out.svg(drawn)
    from kdmesh.report.drawing.svg import svg

    return svg(drawn)


def save(path: Path, drawing: str | bytes, where: str = "-o") -> None:
    """Write a drawing to a file. Raises MeshError where the path names none."""
    refuse_path(path, where)
    write(path, drawing)
