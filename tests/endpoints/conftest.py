from __future__ import annotations

import sys
from pathlib import Path

import pytest
from server import Server

sys.path.append(str(Path(__file__).parent.parent / "zero_difference"))

from threads import one_thread

__all__ = ["one_thread"]


@pytest.fixture
def served():
    """Makes servers that end with the test."""
    made: list[Server] = []

    def make(*args, **settings):
        made.append(Server(*args, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
