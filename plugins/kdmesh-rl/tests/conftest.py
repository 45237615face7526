"""The plain loops of kdmesh's own tests, which this package's loop goes on from, and its threads."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "zero_difference"))

from threads import one_thread

__all__ = ["one_thread"]
