"""plugins/kdmesh-template is what `kdmesh plugins new` writes; its own tests run with those of the other packages."""

from __future__ import annotations

from pathlib import Path

from kdmesh.cli.plugins_new import package

HOME = Path(__file__).parents[2] / "plugins" / "kdmesh-template"
MADE = {".pytest_cache", ".ruff_cache", ".hypothesis", "__pycache__", "build", "dist"}  # by tools, and ignored by git


def test_the_template_is_what_new_writes():
    paths = [path.relative_to(HOME) for path in HOME.rglob("*") if path.is_file()]
    kept = {path.as_posix(): (HOME / path).read_text(encoding="utf-8") for path in paths if not MADE & {*path.parts}}
    assert kept == package("kdmesh-template", "consensus")
