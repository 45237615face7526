"""Run every speed benchmark on an idle machine and write what they print to ``docs/benchmarks.md``: `make bench`."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("throughput", "ray_peers", "plugins", "planner", "startup", "ray_flow", "vocabulary", "text_step")


def main() -> None:
    """Run the parts one after the other."""
    lines = [
        "# Speed",
        "",
        f"Written by `make bench` on {datetime.date.today()}: {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}. "
        "A row under its floor, or behind the loop with a DataLoader, is marked MISS.",
        "",
    ]
    for part in PARTS:
        print(f"== {part}", flush=True)
        script = HERE / f"{part}.py"
        out = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True).stdout
        print(out, flush=True)
        about = script.read_text(encoding="utf-8").split('"""')[1].strip()
        lines += [f"## {part}", "", about, "", "```", out.rstrip(), "```", ""]
    (HERE.parent / "docs" / "benchmarks.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
