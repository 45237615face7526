"""Every written page is what its writer writes now."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
GENERATE = module_from_spec(SPEC)
SPEC.loader.exec_module(GENERATE)


@pytest.mark.parametrize("page", GENERATE.PAGES, ids=lambda page: page.stem)
def test_a_written_page_is_what_is_written_now(page):
    assert page.read_text(encoding="utf-8") == GENERATE.PAGES[page](), "write it anew: make docs"
