"""How long the commands that every user types first take: medians of seven whole processes, wall seconds.

Run: ``python benchmarks/startup.py``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

FLOORS = {"--help": 0.4, "topologies": None, "plan ensemble": None}
HEAVY = ("torch", "ray", "transformers", "networkx", "pydantic")


def main() -> None:
    """Print a line per command, and what `--help` imports of the heavy packages."""
    for command, limit in FLOORS.items():
        words = [sys.executable, "-m", "kdmesh", *command.split()]
        times = []
        for _ in range(8):
            start = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        median = statistics.median(times[1:])
        said = "" if limit is None else f"  (limit {limit} s){'' if median < limit else '  MISS'}"
        print(f"kdmesh {command:15} {median:.2f} s{said}")
    probe = "import sys, kdmesh.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    probe += f"print([name for name in {HEAVY} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout
    print(f"heavy packages that `kdmesh --help` imports: {out.splitlines()[-1]}")


if __name__ == "__main__":
    main()
