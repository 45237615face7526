"""Checkpoints: each host writes its part, the manifest comes last, and the one before stays until then.

A host that does not see the driver's folder hands its part over, and the driver writes it.
What is read back is compared with the manifest's sums first: one that is cut short, or was changed, is passed over.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kdmesh.agents.saving import TOKEN, Part
from kdmesh.agents.state import unwritable
from kdmesh.files import write_all, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from kdmesh.backends._base import Backend

MANIFEST = "manifest.json"
STATE = "stage.json"


class Checkpoints:
    """Numbered folders under ``checkpoints/<stage>/``. One counts only once its ``manifest.json`` is there."""

    KEEP = 2

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()  # a worker may stand elsewhere
        self.apart: set[str] = set()  # hosts that do not see this folder
        self._number: dict[str, int] = {}

    def next(self, stage: str) -> Path:
        """The folder of a stage's next checkpoint."""
        if stage not in self._number:
            numbers = [int(path.name) for path in (self.root / stage).glob("[0-9]*") if path.name.isdigit()]
            self._number[stage] = max(numbers, default=0)
        self._number[stage] += 1
        return self.root / stage / f"{self._number[stage]:04d}"

    def find_apart(self, backend: Backend, hosts: Iterable[str]) -> Generator[list[Any], Any, None]:
        """Find the hosts that are on a machine without this folder: tokens left here must be seen both ways."""
        names, token = list(hosts), secrets.token_hex(8)
        try:
            write_all(self.root, {TOKEN: token.encode()})
            seen = yield [backend.call(host, "sees", str(self.root), token) for host in names]
            shared = [host for host, there in zip(names, seen, strict=True) if there and self._has(host, token)]
            self.apart = set(names) - set(shared)
        except OSError as error:
            raise unwritable(error, self.root / "stage" / "0000") from error
        finally:
            for path in self.root.glob(f"{TOKEN}*"):
                path.unlink(missing_ok=True)

    def _has(self, host: str, token: str) -> bool:
        with suppress(OSError):
            return (self.root / f"{TOKEN}-{host}").read_text(encoding="utf-8") == token
        return False

    def place(self, host: str, folder: Path) -> str | None:
        """Where a host writes what belongs in a folder; None: it hands it over."""
        return None if host in self.apart else str(folder)

    def part(self, host: str, folder: Path) -> str | Part:
        """What a host loads its part from: the folder, or the files themselves."""
        if host not in self.apart:
            return str(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.stem == host}

    def collect(self, folder: Path, parts: Iterable[Part]) -> list[str]:
        """Write what was handed over; returns the names of all files of the hosts."""
        try:
            for part in parts:
                write_all(folder, part)
        except OSError as error:
            raise unwritable(error, folder) from error
        return [name for part in parts for name in part]

    def complete(self, stage: str, folder: Path, files: list[str], state: dict[str, Any]) -> None:
        """Write what the driver knows, then the manifest with every file's sum, and drop what is older.

        RunFailed where the disk is full or the folder cannot be written; the checkpoint before is whole then.
        """
        try:
            write_json(folder / STATE, state, indent=1)
            sums = {name: _sum(folder / name) for name in sorted([*files, STATE])}
            number = self._number[stage]
            write_json(folder / MANIFEST, {"stage": stage, "number": number, "sha256": sums})
            for old in folder.parent.glob("[0-9]*"):
                if old.name.isdigit() and int(old.name) <= number - self.KEEP:
                    shutil.rmtree(old)
        except OSError as error:
            raise unwritable(error, folder) from error

    def last(self, stage: str, passed: Callable[[Path, str], None] = lambda folder, why: None) -> Path | None:
        """The newest sound checkpoint of a stage; ``passed`` is told of each newer one that is not, and why."""
        found = [path for path in (self.root / stage).glob(f"[0-9]*/{MANIFEST}") if path.parent.name.isdigit()]
        for manifest in sorted(found, key=lambda path: int(path.parent.name), reverse=True):
            why = _fault(manifest)
            if not why:
                return manifest.parent
            passed(manifest.parent, why)
        return None

    @staticmethod
    def state(folder: Path) -> dict[str, Any]:
        """What the driver knew."""
        found: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return found


def _fault(manifest: Path) -> str:
    """What is wrong with a checkpoint; nothing if it is sound."""
    try:
        sums = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
        for name, expected in sums.items():
            if _sum(manifest.parent / name) != expected:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
