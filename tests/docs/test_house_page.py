"""docs/architecture.md lists the modules of the rooms that have many."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("<!-- house: end -->")[2]


@pytest.mark.parametrize("room", ["engine", "placement", "checks", "hosts", "graph", "backends", "contracts"])
def test_every_module_of_a_large_room_stands_on_the_page(room: str) -> None:
    about = PAGE.partition(f"\n- `{room}/`")[2].partition("\n- `")[0]
    there = {path.stem for path in (ROOT / "kdmesh" / room).glob("*.py") if not path.stem.startswith("_")}
    assert len(there) > 2 and there - set(re.findall(r"`(\w+)`", about)) == set()


@pytest.mark.parametrize("room", ["engine", "graph"])
def test_what_stands_there_is_a_module(room: str) -> None:
    about = PAGE.partition(f"\n- `{room}/`")[2].partition("\n- `")[0]
    names = set(re.findall(r"`([a-z]\w+)`", about)) - {"make_plan"}
    assert {name for name in names if not (ROOT / "kdmesh" / room / f"{name}.py").is_file()} == set()
