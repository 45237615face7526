"""What hosts gain and cost, and how long it takes to plan for them: one part, with its options.

Run from the repository's root: ``python -m benchmarks.placement PART [OPTION ...]``. Parts:

- ``peers``: two heavy peers on two hosts against one process;
- ``flow``: work that flows one way or not at all, `placement: auto`, calls, and bytes that cross;
- ``planner``: the time from a file of 10,000 agents to its plan;
- ``scaling``: a simulation of up to 1,024 hosts, and what it gets right of 2 to 4 real ones.
"""

from __future__ import annotations

import sys
from importlib import import_module

PARTS = ("peers", "flow", "planner", "scaling")


def main() -> int:
    """Run a part."""
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        print(__doc__, file=sys.stderr)
        return 2
    part = sys.argv.pop(1)
    sys.argv[0] = f"python -m benchmarks.placement {part}"
    return import_module(f"benchmarks.placement.{part}").main() or 0


if __name__ == "__main__":
    sys.exit(main())
