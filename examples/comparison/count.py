"""Count the lines of one plugin of the same intent for each system: ``python examples/comparison/count.py``.

Lines of code: no blank ones, no comments, no docstrings. Of `pyproject.toml`, all but blank ones.
"""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).parent
SYSTEMS = ("kdmesh", "pytest", "llm", "optuna", "lightning")


def code(path: Path) -> int:
    """How many lines of code a Python file has."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    words = set()  # lines of docstrings
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            words |= {*range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)}
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#")
        for number, line in enumerate(lines, 1)
        if number not in words
    )


def counted(system: str) -> tuple[int, int, int]:
    """Lines of the plugin, of what makes it a package, and of its test."""
    name = f"{system}_lines.py"
    toml = (HERE / system / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    return code(HERE / system / name), sum(map(bool, toml)), code(HERE / system / f"test_{name}")


def rows() -> list[str]:
    """The rows of the table in docs/plugins/comparison.md."""
    return [f"| {system} | {' | '.join(map(str, counted(system)))} |" for system in SYSTEMS]


if __name__ == "__main__":
    print(*rows(), sep="\n")
