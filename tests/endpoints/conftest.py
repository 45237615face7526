from __future__ import annotations

import pytest
from server import Server


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
