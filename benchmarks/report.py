"""Run speed benchmarks on an idle machine and write what they print to ``docs/benchmarks.md``: `make bench`.

All of them, or those that are named, whose sections are replaced: ``python benchmarks/report.py placement.flow``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PARTS = (
    *("throughput", "recording", "placement.peers", "plugins", "boundary", "placement.planner", "startup"),
    *("placement.flow", "vocabulary", "text_step", "store_runs"),
)


def section(part: str, note: str = "") -> str:
    """Run a part: its docstring and what it prints."""
    print(f"== {part}", flush=True)
    room, _, name = part.rpartition(".")
    script = HERE / room / f"{name}.py"
    asked = ["-m", f"benchmarks.{room}", name] if room else [script]  # a folder has one entry for its parts
    out = subprocess.run([sys.executable, *asked], cwd=HERE.parent, check=False, capture_output=True, text=True).stdout
    print(out, flush=True)
    about = script.read_text(encoding="utf-8").split('"""')[1].strip()
    return "\n\n".join(text for text in (f"## {part}", note, about, f"```\n{out.rstrip()}\n```") if text) + "\n"


def replaced(page: str, part: str, new: str) -> str:
    """The page with another section of a part, at the end where it had none."""
    found = re.compile(rf"^## {part}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if not found.search(page):
        return f"{page}\n{new}"
    return found.sub(lambda old: new if old.end() == len(page) else f"{new}\n", page)


def main() -> None:
    """Run the parts one after the other."""
    options = argparse.ArgumentParser()
    options.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    asked, today = options.parse_args().parts, datetime.date.today()
    if unknown := set(asked) - set(PARTS):
        options.error(f"no such part: {', '.join(sorted(unknown))}")
    if asked:
        for part in asked:
            new = section(part, f"This part alone was run again on {today}.")
            PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), part, new), encoding="utf-8")
        return
    head = (
        f"# Speed\n\nWritten by `make bench` on {today}: {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}. "
        "A row under its floor, or behind the loop with a DataLoader, is marked MISS.\n"
    )
    others = re.split(r"^(?=## )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    kept = [text.rstrip("\n") + "\n" for text in others if text.splitlines()[0].removeprefix("## ") not in PARTS]
    PAGE.write_text("\n".join([head, *map(section, PARTS), *kept]), encoding="utf-8")  # `make peers` prints the others


if __name__ == "__main__":
    main()
