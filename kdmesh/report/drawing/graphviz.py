"""The drawing laid out by Graphviz, as SVG or PNG: better with many crossing arrows; needs the extra `kdmesh[draw]`."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.report.drawing.dot import dot
from kdmesh.report.drawing.svg import told, xml

if TYPE_CHECKING:
    from kdmesh.report.drawing.scene import Scene

DOTS = 144  # per inch, of a PNG
DARK = """
@media (prefers-color-scheme:dark){.kdmesh>g>polygon{fill:#12161c}.kdmesh text{fill:#e8edf3}
.kdmesh .stage path{fill:#1b222b;stroke:#465260}.kdmesh .agent polygon{fill:#173554;stroke:#6fb1f5}
.kdmesh .consensus path{fill:#453410;stroke:#e5b84b}.kdmesh .frozen polygon{fill:#2b323a;stroke:#98a4b1}

.kdmesh .private polygon,.kdmesh .private path{stroke:#f47fb2}.kdmesh .edge path{stroke:#9aa7b5}
.kdmesh .edge polygon{fill:#9aa7b5;stroke:#9aa7b5}}
"""


def png(scene: Scene) -> bytes:
    """Return the drawing as PNG. Raises MeshError where pygraphviz is not installed."""
    return _drawn(scene, "png", f"-Gdpi={DOTS}")


def svg(scene: Scene) -> str:
    """Return the drawing as SVG, with title, description and a dark set of colours."""
    text = _drawn(scene, "svg").decode("utf-8")
    body = text[text.index("<svg") :]
    body = re.sub(r"<!--.*?-->\n?", "", body, flags=re.DOTALL)  # names the version of Graphviz
    head, rest = body.split(">", 1)
    about = f"<title>{xml(f'Topology of {scene.name}')}</title>\n<desc>{xml(told(scene))}</desc>\n<style>{DARK}</style>"
    return f'{head} class="kdmesh" role="img">\n{about}{rest}'


def _drawn(scene: Scene, form: str, *arguments: str) -> bytes:
    try:
        from pygraphviz import AGraph
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "pygraphviz"
        raise MeshError(
            "pygraphviz is not installed" if missing else f"pygraphviz cannot be imported: {error}",
            where="--format png" if form == "png" else "--graphviz",
            instead="pip install 'kdmesh[draw]', or --format svg without --graphviz",
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Graphviz looks for fonts, and says so
        drawn: bytes = AGraph(string=dot(scene)).draw(format=form, prog="dot", args=" ".join(arguments))
    return drawn
