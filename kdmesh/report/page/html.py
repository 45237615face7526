"""The page as HTML: one file with its style and drawings in it, which loads nothing.

It has two forms. The static one runs nothing. In the interactive one each chart is drawn anew from its Vega-Lite spec,
by scripts that stand in the page itself, and which its policy names by their sums: no other script can run in it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from hashlib import sha256
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.errors import printable
from kdmesh.files import refuse_path, write
from kdmesh.report.page import coordinates
from kdmesh.report.page.charts import draw, in_words
from kdmesh.report.page.vega import spec

if TYPE_CHECKING:
    from kdmesh.report.page.blocks import Block, Chart, Page

CHARTS = ("lines", "bars", "points", "matrix", "spans", "coordinates", "slice")
TEMPLATES = Path(__file__).parent / "templates"
BUNDLE = Path(__file__).parent / "bundle"


def html(page: Page, interactive: bool = False) -> str:
    """The page as one HTML text. Whatever comes from a folder is escaped.

    ``interactive``: with the scripts that draw charts which answer to a pointer, about 0.9 MB.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from jinja2.utils import htmlsafe_json_dumps
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

    def specified(chart: Chart) -> Markup | None:
        made = spec(chart)
        return None if made is None else htmlsafe_json_dumps(_visible(made), separators=(",", ":"), ensure_ascii=False)

    env.filters |= {"spec": specified, "in_words": in_words}
    env.filters |= {"drawn": drawn, "exact": repr, "readable": _readable, "together": together}
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    texts = scripts() if interactive else []
    given = {"interactive": interactive, "scripts": [Markup(text) for text in texts], "hashes": Markup(_sums(texts))}
    return env.get_template("page.html.j2").render(page=page, style=Markup(style), charts=CHARTS, **given)


def _readable(text: object) -> str:
    """Text as `printable` gives it; of what an edited file has in place of a text, what Python writes."""
    return printable(text if isinstance(text, str) else str(text))


def _visible(value: Any) -> Any:
    """A spec with every text in it as `printable` gives it."""
    if isinstance(value, dict):
        return {key: _visible(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_visible(one) for one in value]
    return printable(value) if isinstance(value, str) else value


def scripts() -> list[str]:
    """What an interactive page runs: Vega with its licences, and what hands it the specs as charts come into view."""
    licences = (BUNDLE / "LICENSES.txt").read_text(encoding="utf-8")
    vega = (BUNDLE / "vega.js").read_text(encoding="utf-8")
    return [f"/*!\n{licences}*/\n{vega}", (TEMPLATES / "live.js").read_text(encoding="utf-8")]


def _sums(texts: Sequence[str]) -> str:
    """Sources of a Content-Security-Policy that admit these scripts alone."""
    return " ".join(f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)


def together(blocks: Sequence[Block]) -> list[list[Block]]:
    """Blocks in order, charts that follow each other in one list: they stand side by side where there is room."""
    return [list(run) for _, run in groupby(blocks, key=lambda one: one.kind in CHARTS)]


def save(path: Path, page: Page, where: str = "-o", *, interactive: bool = False) -> None:
    """Write the page, whole or not at all: see `html`. MeshError where the path names no file that can be written."""
    refuse_path(path, where)
    write(path, html(page, interactive))
