"""What claims share that are ``kdmesh compare`` of the meshes in a folder of ``benchmarks/claims``."""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: matrices this small are fastest on one thread

import yaml
from texts import PAGE, ROOT, Report

from kdmesh.cli import main as command

CLAIMS = Path(__file__).parent / "claims"


def compare(
    about: str | None, room: str, names: Sequence[str], more: Callable[[Path, Report], None] | None = None
) -> int:
    """Train all, and print how every two of their students differ, and what ``more`` says of the comparison's folder.

    The exit code: that of ``kdmesh compare``.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--out", default="runs", help="parent folder of the trials")
    parser.add_argument("--steps", type=int, help="train for so many steps at most, to see that all runs: no figures")
    parser.add_argument("--write", action="store_true", help=f"write the figures into {PAGE.relative_to(ROOT)}")
    given = parser.parse_args()
    if given.write and given.steps is not None:
        parser.error("--steps makes no figures to --write")
    report, out = Report(f"claims of {room}"), Path(given.out) / room
    with tempfile.TemporaryDirectory() as folder:
        files = [CLAIMS / room / f"{name}.yaml" for name in names]
        if given.steps is not None:
            files = [_short(file, given.steps, Path(folder)) for file in files]
        options = ["--seeds", str(given.seeds), "--no-controls", "--each", "--agent", "student", "--no-report"]
        said = _Said()
        with redirect_stdout(said):
            code = command(["compare", *map(str, files), *options, "--quiet", "--store", "off", "--out", str(out)])
        lines = said.getvalue().rstrip("\n").split("\n")
        report.lines += [line for line in lines if not line.startswith(str(out))]  # the folder is of this machine
    if code:
        return code
    if more is not None:
        more(max(out.glob("*/*/compare.json"), key=lambda file: file.stat().st_mtime).parent, report)
    report.close(given.write)
    return 0


class _Said(io.StringIO):
    """What is printed, kept beside being shown."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = sys.stdout

    def write(self, text: str) -> int:
        """Show and keep."""
        self._shown.write(text)
        self._shown.flush()
        return super().write(text)


def _short(file: Path, steps: int, folder: Path) -> Path:
    """A copy of a mesh in which nobody trains longer."""
    path = folder / file.name
    path.write_text(yaml.safe_dump(_cut(yaml.safe_load(file.read_text(encoding="utf-8")), steps)), encoding="utf-8")
    return path


def _cut(value: Any, steps: int) -> Any:
    if isinstance(value, list):
        return [_cut(one, steps) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _cut(one, steps) for key, one in value.items()}
    for key in {"epochs", "steps"} & {*found}:
        del found[key]
        found["steps"] = steps
    return found
