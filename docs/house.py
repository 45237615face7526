"""Draw the house: which room imports which, from the code: ``python docs/house.py [--modules]``.

The drawing in docs/architecture.md is this one; a test holds the page to it, and the imports to having no circle.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parent.parent
PACKAGE = "kdmesh"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- house: begin -->", "<!-- house: end -->"


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of kdmesh by its dotted name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(root: Path = ROOT) -> nx.DiGraph:
    """The import graph, read from the syntax trees: imports inside functions and for types alone count as well."""
    known = modules(root)
    graph = nx.DiGraph()
    graph.add_nodes_from(known)
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for target in names:
                while target and target not in known:  # a name within a module: the module
                    target = target.rpartition(".")[0]
                if target and target != name:
                    graph.add_edge(name, target)
    return graph


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """The sets of modules that import each other, sorted."""
    return sorted(sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1)


def room(module: str) -> str:
    """The room of a module: the folder or file right below kdmesh."""
    return module.split(".")[1] if "." in module else module


def rooms(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph of rooms."""
    found = nx.DiGraph()
    for one, two in graph.edges:
        if room(one) != room(two):
            found.add_edge(room(one), room(two))
    return found


def lines(root: Path = ROOT) -> dict[str, int]:
    """Lines of code and docstrings by room."""
    found: dict[str, int] = {}
    for name, path in modules(root).items():
        found[room(name)] = found.get(room(name), 0) + len(path.read_text(encoding="utf-8").splitlines())
    return found


def drawing(root: Path = ROOT) -> str:
    """Rooms from the top of the house to its ground, each with its lines and the rooms that it imports directly."""
    graph, size = rooms(imports(root)), lines(root)
    levels = list(nx.topological_generations(nx.condensation(graph)))
    members = nx.condensation(graph).nodes(data="members")
    rows = []
    for level in levels:
        for part in sorted(level, key=lambda number: sorted(members[number])):
            for name in sorted(members[part]):
                rows.append((name, size.get(name, 0), ", ".join(sorted(graph.successors(name)))))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}} {count:>5}  {below}".rstrip() for name, count, below in rows)


def main() -> None:
    """Print the drawing, and the circles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the drawing into docs/architecture.md")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout")
    asked = parser.parse_args()
    text = drawing(asked.root)
    if asked.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n```\n{text}\n```\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(text)
    for part in circles(imports(asked.root)):
        print(f"circle of {len(part)}: {', '.join(part)}")


if __name__ == "__main__":
    main()
