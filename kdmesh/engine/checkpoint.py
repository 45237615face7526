"""Checkpoints: each host writes its part, the manifest comes last, and the one before stays until then."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Checkpoints:
    """Numbered folders under ``checkpoints/<stage>/``. One counts only once its ``manifest.json`` is there."""

    KEEP = 2

    def __init__(self, root: Path) -> None:
        self.root = root
        self._number: dict[str, int] = {}

    def next(self, stage: str) -> Path:
        """The folder of a stage's next checkpoint."""
        self._number[stage] = self._number.get(stage, 0) + 1
        return self.root / stage / f"{self._number[stage]:04d}"

    def complete(self, stage: str, folder: Path, files: list[str]) -> None:
        """Write the manifest with every file's sha256 under another name, rename it, and drop what is older."""
        sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(files)}
        draft = folder / "manifest.json.part"
        draft.write_text(json.dumps({"stage": stage, "number": self._number[stage], "sha256": sums}, indent=2) + "\n")
        draft.rename(folder / "manifest.json")
        old = folder.parent / f"{self._number[stage] - self.KEEP:04d}"
        if old.exists():
            shutil.rmtree(old)

    def last(self, stage: str) -> Path | None:
        """The newest whole checkpoint of a stage."""
        folders = sorted((self.root / stage).glob("*/manifest.json"))
        return folders[-1].parent if folders else None
