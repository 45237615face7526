"""The plain loops of kdmesh's own tests, which this package's loop goes on from."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "zero_difference"))
