from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from functools import cache

import pytest
from rich.cells import cell_len

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.report.drawing.formats import FORMATS, draw, format_of
from kdmesh.report.drawing.placing import place
from kdmesh.report.drawing.routing import route
from kdmesh.report.drawing.scene import scene
from kdmesh.report.drawing.terminal import terminal
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import bundled, read_mesh

SVG = "{http://www.w3.org/2000/svg}"
NASTY = (
    """</text><script>alert("1")</script> & &lt; "quoted" 'x' \\N \\" ]--> |x| `**b**` #quot; %% {{y}} $ """
    "\x1b[31m \u202e"
)


@cache
def planned(name):
    return make_plan(read_mesh(name, []), registry())


@pytest.fixture(scope="module")
def nasty():
    """A mesh in whose texts everything stands that has a meaning in some format."""
    data = {
        "description": NASTY,
        "agents": {"t": {"exit": NASTY}, "s": {}, "f": {"update": "frozen"}},
        "flows": [
            {"from": "t", "to": "s", "objective": "hint", "signal": "hidden", "tap": {"of": NASTY, "to": "end"}},
            {"from": "f", "to": ["s", "t"], "objective": "kl"},
        ],
    }
    return make_plan(MeshSpec.model_validate(data), registry())


@pytest.fixture(scope="module")
def large():
    """300 agents of three kinds, in two stages."""
    agents = {"wide": {"count": 150}, "narrow": {"count": 100, "seed": 1}, "s": {"count": 50, "model": "mlp"}}
    teach = {"teachers": ["wide[*]", "narrow[*]"], "students": ["s[*]"]}
    return make_plan(MeshSpec.model_validate({"agents": agents, "connect": [{"ensemble": teach}]}), registry())


def svg_texts(text):
    root = ET.fromstring(text)
    return root, [element.text or "" for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_mesh_in_every_text_format(name):
    plan = planned(name)
    agents = [node.title for node in scene(plan).nodes]
    root, texts = svg_texts(draw(plan, "svg"))
    assert root.get("role") == "img" and root.get("aria-labelledby").split()[0] == root.find(f"{SVG}title").get("id")
    assert root.find(f"{SVG}desc").text and all(title in texts for title in agents)
    for form in ("terminal", "mermaid", "dot"):
        text = draw(plan, form)
        assert all(title in text for title in agents) and text == draw(planned(name), form)
    assert draw(plan, "svg") == draw(planned(name), "svg")


@pytest.mark.parametrize("name", bundled())
def test_dot_is_read_by_graphviz(name):
    pygraphviz = pytest.importorskip("pygraphviz")
    plan = planned(name)
    found, graph = scene(plan), pygraphviz.AGraph(string=draw(plan, "dot"))
    assert set(graph.nodes()) == {node.id for node in found.nodes}
    assert len(graph.edges()) == len(found.arrows) and len(graph.subgraphs()) == len(found.clusters)


@pytest.mark.parametrize("name", ["council", "parties"])
def test_pictures_of_graphviz(name):
    pytest.importorskip("pygraphviz")
    plan = planned(name)
    assert draw(plan, "png").startswith(b"\x89PNG\r\n\x1a\n")
    text = draw(plan, "svg", graphviz=True)
    root, texts = svg_texts(text)
    assert (root.get("role") == "img" and "party[0..5] × 6" in texts) or "small" in texts
    assert text == draw(planned(name), "svg", graphviz=True)


def mermaid_lines(text):
    """Mermaid's lines by kind, each checked against its grammar; what is in quotes is checked to hold no quote."""
    first, *rest = text.splitlines()
    assert first == "flowchart TB"
    kinds = {
        "acc": r"  acc(Title|Descr): [^<>\"&#{}]*",
        "subgraph": r'  subgraph s\d+\["[^"`<>]+"\]',
        "end": r"  end",
        "node": r' {2,4}n\d+(\[|\[\[|\(\[)"((?!<(?!br/>))[^"`])+"(\]|\]\]|\]\)):::\w+',
        "class": r"    class n\d+ private",
        "arrow": r'  n\d+ <?(-->|-\.->)(\|"((?!<(?!br/>))[^"`])+"\|)? n\d+',
        "style": r"  (classDef|linkStyle) .*",
    }
    found = {kind: [] for kind in kinds}
    for line in rest:
        (kind,) = [kind for kind, form in kinds.items() if re.fullmatch(form, line)]
        found[kind].append(line)
    return found


@pytest.mark.parametrize("name", bundled())
def test_mermaid_has_every_node_arrow_and_stage(name):
    found, lines = scene(planned(name)), mermaid_lines(draw(planned(name), "mermaid"))
    assert len(lines["node"]) == len(found.nodes) and len(lines["arrow"]) == len(found.arrows)
    assert len(lines["subgraph"]) == len(lines["end"]) == len(found.clusters)


def test_texts_are_escaped_everywhere(nasty):
    root, texts = svg_texts(draw(nasty, "svg"))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "desc", "style", "defs", "marker", "path", "rect", "text", "g")
    }
    assert '<script>alert("1")</script>' in " ".join(texts) and "\\x1b[31m" in " ".join(texts)
    assert mermaid_lines(draw(nasty, "mermaid"))["arrow"]
    plain = draw(nasty, "terminal")
    assert "\x1b" not in plain and "\u202e" not in plain and "<script>" in plain


def test_texts_are_escaped_for_graphviz(nasty):
    pygraphviz = pytest.importorskip("pygraphviz")
    graph = pygraphviz.AGraph(string=draw(nasty, "dot"))
    assert set(graph.nodes()) == {"n0", "n1", "n2"}
    _, texts = svg_texts(draw(nasty, "svg", graphviz=True))
    shown = " ".join(texts)
    assert '</text><script>alert("1")</script> & &lt; "quoted"' in shown and '\\N \\" ]-->' in shown


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", bundled())
def test_text_fits_the_terminal(name, width):
    lines = terminal(scene(planned(name)), width).plain.splitlines()
    assert max(map(cell_len, lines)) <= width


def test_text_in_ascii():
    plain = terminal(scene(planned("parties")), 40, ascii=True)
    assert plain.plain.isascii() and "+----" in plain.plain and "-->" in plain.plain and "x 6" in plain.plain
    assert len(plain.spans) == len(terminal(scene(planned("parties")), 40).spans) > 0


def test_three_hundred_agents_fit_a_page(large):
    root, texts = svg_texts(draw(large, "svg"))
    assert float(root.get("width")) < 1200 and float(root.get("height")) < 1200
    assert "wide[0..149] × 150" in texts
    assert len(draw(large, "terminal").splitlines()) < 60


def test_the_picture_overlaps_nothing(large):
    for plan in (large, *map(planned, bundled())):
        found = scene(plan)
        placed = place(found)
        routes = route(found, placed)
        boxes = [*placed.boxes.values(), *(one.box for one in routes if one.lines)]
        over = [(a, b) for at, a in enumerate(boxes) for b in boxes[at + 1 :] if a.meets(b, -1.0)]
        assert over == [], plan.spec.name
        for node in found.nodes:
            if node.cluster:
                box, around = placed.boxes[node.id], placed.clusters[node.cluster]
                assert around.x <= box.x and box.x + box.width <= around.x + around.width
                assert around.y <= box.y and box.y + box.height <= around.y + around.height


def test_colours_have_contrast_in_light_and_dark():
    """Text on what it stands on, by WCAG: at least 4.5 to 1."""

    def light(colour):
        parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    style = draw(planned("ring"), "svg")
    sets = [
        dict(re.findall(r"--([\w-]+):(#\w{6})", part)) for part in style.partition("prefers-color-scheme:dark")[::2]
    ]
    assert sets[0].keys() == sets[1].keys()
    for colours in sets:
        for ink, ground in (
            *(("ink", ground) for ground in ("page", "stage", "agent", "rule", "frozen")),
            *(("soft", ground) for ground in ("page", "stage")),
        ):
            low, high = sorted((light(colours[ink]), light(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


def test_a_missing_pygraphviz_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    for how in ({"form": "png"}, {"form": "svg", "graphviz": True}):
        with pytest.raises(MeshError, match=r"pygraphviz is not installed[\s\S]*pip install 'kdmesh\[draw\]'"):
            draw(planned("ring"), **how)
    assert "<svg" in draw(planned("ring"), "svg")


def test_formats_are_named(tmp_path):
    assert {format_of(tmp_path / f"a{end}") for end in (".txt", ".SVG", ".png", ".mmd", ".gv")} == set(FORMATS)
    with pytest.raises(MeshError, match=r"ends in '.jpg'"):
        format_of(tmp_path / "a.jpg")
    with pytest.raises(MeshError, match="no format 'gif'"):
        draw(planned("ring"), "gif")
    with pytest.raises(MeshError, match="lays out pictures"):
        draw(planned("ring"), "dot", graphviz=True)
