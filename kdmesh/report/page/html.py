"""The page as HTML: one file with its style and drawings in it, which loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, printable
from kdmesh.files import found_at, write
from kdmesh.report.page import coordinates
from kdmesh.report.page.charts import draw

if TYPE_CHECKING:
    from kdmesh.report.page.blocks import Block, Chart, Page

CHARTS = ("lines", "bars", "points", "matrix", "spans", "coordinates", "slice")
TEMPLATES = Path(__file__).parent / "templates"


def html(page: Page) -> str:
    """The page as one HTML text. Whatever comes from a folder is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    keys = count()
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def drawn(chart: Chart) -> Markup:
        form = coordinates.draw if chart.kind in coordinates.KINDS else draw
        return Markup(form(chart, f"chart-{next(keys)}"))

    env.filters |= {"drawn": drawn, "exact": repr, "readable": printable, "together": together}
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return env.get_template("page.html.j2").render(page=page, style=Markup(style), charts=CHARTS)


def together(blocks: Sequence[Block]) -> list[list[Block]]:
    """Blocks in order, charts that follow each other in one list: they stand side by side where there is room."""
    return [list(run) for _, run in groupby(blocks, key=lambda one: one.kind in CHARTS)]


def save(path: Path, page: Page, where: str = "-o") -> None:
    """Write the page, whole or not at all. MeshError where the path names no file that can be written."""
    what = found_at(path)
    if what.startswith("is no path") or what == "folder":
        what = "is a folder" if what == "folder" else what
        raise MeshError(what, file=str(path), where=where, instead="the path of a file")
    if found_at(path.parent) != "folder":
        raise MeshError(f"there is no folder {str(path.parent)!r}", where=where, instead="a folder that is there")
    write(path, html(page))
