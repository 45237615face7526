"""Checkpoints: each host writes its part, the manifest comes last, and the one before stays until then.

A host that does not see the driver's folder hands its part over, and the driver writes it. The manifest says whose the
checkpoint is (run, seed, stage, number), how its parts are laid out, and the sum of every file; what is read back is
compared with these first: one that is cut short, was changed, or is another's is passed over.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kdmesh.engine.sharing import apart
from kdmesh.errors import MeshError
from kdmesh.files import DRAFT, inside, read, sha256, write_all, write_json
from kdmesh.hosts.checkpoint import part_names, unwritable
from kdmesh.hosts.export import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kdmesh.backends._base import Backend, Work


MANIFEST = "manifest.json"
STATE = "stage.json"
LAYOUT = 3  # of the hosts' parts; 1 did not name the kinds of signals, 2 not what a gate is of
HOSTS = "hosts"  # the folder of the hosts' parts: no host's name can collide with ours


class Checkpoints:
    """Numbered folders under ``checkpoints/<stage>/``. One counts only once its ``manifest.json`` is there.

    ``run`` and ``seed``: whose they are; ``from_start``: a stage all of whose checkpoints are damaged may begin anew.
    """

    KEEP = 2

    def __init__(self, root: Path, run: str = "", seed: int = 0, from_start: bool = False) -> None:
        self.root = root.resolve()  # a worker may stand elsewhere
        self.owner = {"run": run, "seed": seed, "layout": LAYOUT}
        self.from_start = from_start
        self.apart: set[str] = set()  # hosts that do not see this folder
        self.hosts: set[str] = set()  # all that there were
        self._number: dict[str, int] = {}

    def next(self, stage: str) -> Path:
        """The folder of a stage's next checkpoint."""
        if stage not in self._number:
            numbers = [int(path.name) for path in (self.root / stage).glob("[0-9]*") if path.name.isdigit()]
            self._number[stage] = max(numbers, default=0)
        self._number[stage] += 1
        return inside(self.root, stage, f"{self._number[stage]:04d}")

    def find_apart(self, backend: Backend, hosts: Iterable[str]) -> Work[None]:
        """Find the hosts that are on a machine without this folder: tokens left here must be seen both ways."""
        names = list(hosts)
        self.hosts.update(names)
        try:
            self.apart = yield from apart(self.root, backend, names)
        except OSError as error:
            raise unwritable(error, self.root / "stage" / "0000") from error

    def place(self, host: str, folder: Path) -> str | None:
        """Where a host writes what belongs in a folder; None: it hands it over."""
        return None if host in self.apart else str(folder)

    def part(self, host: str, folder: Path) -> str | Part:
        """What a host loads its part from: the folder, or the files themselves."""
        if host not in self.apart:
            return str(folder / HOSTS)
        return {name: (folder / HOSTS / name).read_bytes() for name in part_names(host)}

    def kept(self, host: str, folder: Path) -> Part:
        """A host's part of a checkpoint, to be written into another."""
        return {name: (folder / HOSTS / name).read_bytes() for name in part_names(host)}

    def collect(self, folder: Path, parts: Iterable[Part]) -> list[str]:
        """Write what was handed over; returns the names of all files of the hosts."""
        try:
            for part in parts:
                write_all(folder / HOSTS, part)
        except OSError as error:
            raise unwritable(error, folder) from error
        return [f"{HOSTS}/{name}" for part in parts for name in part]

    def complete(self, stage: str, folder: Path, files: list[str], state: dict[str, Any]) -> None:
        """Write what the driver knows, then the manifest with every file's sum, and drop what is older.

        Hosts that are `unseen` in what it knows have no part. RunFailed where the disk is full or the folder cannot be
        written; the checkpoint before is whole then.
        """
        try:
            write_json(folder / STATE, state, indent=1)
            sums = {name: sha256(folder / name) for name in sorted([*files, STATE])}
            number = self._number[stage]
            known = {**self.owner, "stage": stage, "number": number, "sha256": sums}
            write_json(folder / MANIFEST, known | ({"unseen": unseen} if (unseen := state.get("unseen")) else {}))
            for old in folder.parent.glob("[0-9]*"):
                if old.name.isdigit() and int(old.name) <= number - self.KEEP:
                    self._remove(stage, old)
        except OSError as error:
            raise unwritable(error, folder) from error

    def last(
        self, stage: str, passed: Callable[[Path, str], None] = lambda folder, why: None, hosts: Iterable[str] = ()
    ) -> Path | None:
        """The newest sound checkpoint of a stage; ``passed`` is told of each newer one that is not, and why.

        ``hosts``: whose parts it must have.
        """
        needed = list(hosts)
        found = [path for path in (self.root / stage).glob(f"[0-9]*/{MANIFEST}") if path.parent.name.isdigit()]
        for manifest in sorted(found, key=lambda path: int(path.parent.name), reverse=True):
            why = self.fault(stage, manifest.parent, needed)
            if not why:
                return manifest.parent
            passed(manifest.parent, why)
        return None

    def had(self, stage: str) -> bool:
        """Whether a stage had a checkpoint, sound or not."""
        return any((self.root / stage).glob(f"[0-9]*/{MANIFEST}"))

    def fault(self, stage: str, folder: Path, hosts: Iterable[str]) -> str:
        """What is wrong with a checkpoint; nothing if it is sound. ``hosts``: whose parts it must have, but for those
        that were not there yet.
        """
        try:
            inside(self.root, stage, folder.name)
            manifest = self._manifest(folder)
            for field, expected in {**self.owner, "stage": stage, "number": int(folder.name)}.items():
                if manifest.get(field) != expected:
                    return f"it is of {field} {manifest.get(field)!r}, not {expected!r}"
            sums, here = manifest["sha256"], [host for host in hosts if host not in manifest.get("unseen", ())]
            needed = {STATE, *(f"{HOSTS}/{name}" for host in here for name in part_names(host))}
            if missing := sorted(needed - sums.keys()):
                return f"its manifest has no sum of {missing[0]}"
            for name, expected in sums.items():
                if sha256(inside(folder, name)) != expected:
                    return f"{name} is not what was written"
        except MeshError as error:
            return error.what
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    @staticmethod
    def _manifest(folder: Path) -> dict[str, Any]:
        """What a checkpoint's manifest says. ValueError where it is none."""
        manifest = json.loads(read(folder / MANIFEST))
        sums = manifest.get("sha256") if isinstance(manifest, dict) else None
        if not isinstance(sums, dict) or not sums or not all(isinstance(value, str) for value in sums.values()):
            raise ValueError("its manifest has no sums of files")
        return dict(manifest)

    def _remove(self, stage: str, folder: Path) -> None:
        """Remove an old checkpoint: what its manifest lists, or where none was written yet, what it would have been.

        Whatever else is there was put there by somebody else, and stays, with the folders around it.
        """
        hosts = folder / HOSTS
        try:
            inside(self.root, stage, folder.name, HOSTS)
            if (folder / MANIFEST).exists():
                manifest = self._manifest(folder)
                if any(manifest.get(field) != value for field, value in {**self.owner, "stage": stage}.items()):
                    return  # not ours
                paths = [
                    folder / MANIFEST,
                    *(inside(folder, name) for name in manifest["sha256"]),
                ]  # first it counts no more
            else:
                parts = [name for host in self.hosts for name in part_names(host)]
                paths = [folder / STATE, *(hosts / name for name in parts)]
        except (MeshError, ValueError):  # nor is what leads elsewhere
            return
        for path in [*paths, *(path for home in (folder, hosts) for path in home.glob(f".*{DRAFT}"))]:
            path.unlink(missing_ok=True)
        for home in (hosts, folder):
            with suppress(OSError):
                home.rmdir()

    @staticmethod
    def state(folder: Path) -> dict[str, Any]:
        """What the driver knew."""
        found: dict[str, Any] = json.loads(read(folder / STATE))
        return found
