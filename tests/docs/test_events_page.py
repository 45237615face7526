"""The page about events is what their classes say."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from kdmesh.contracts.events import KINDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
SPEC = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
GENERATE = module_from_spec(SPEC)
SPEC.loader.exec_module(GENERATE)


def test_the_page_is_what_the_classes_say():
    assert GENERATE.events_page() == PAGE, "write it anew: make docs"
    assert [line[3:] for line in PAGE.splitlines() if line.startswith("## ")] == [*KINDS]
