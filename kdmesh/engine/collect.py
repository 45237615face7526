"""A run's folder at a URL of any file system that fsspec knows: written here, taken there at the end, fetched again.

The run itself works in a local folder: checkpoints are renamed and compared there, and survive a network that does not.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from kdmesh.contracts.run_files import LOCK, RESULTS, SUMS
from kdmesh.engine.sums import parsed
from kdmesh.errors import MeshError, RunFailed

HERE = Path("runs")  # where the folder is meanwhile
ACCESS = "the package and the rights that this file system needs, or another place"


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL, rather than a folder."""
    return "://" in str(place)


def complete(results: dict[str, Any] | None) -> bool:
    """Whether a table of results is one of everything that was asked for."""
    return results is not None and not results.get("failed")


def fresh(parent: Path, name: str) -> Path:
    """Make a new folder; where there is one of this name, a number is added."""
    root, number = parent / name, 2
    while root.exists():
        root, number = parent / f"{name}-{number}", number + 1
    root.mkdir(parents=True)
    return root


class Place:
    """A folder behind a URL. Every file system fails in its own ways: whatever it raises is told as ours."""

    def __init__(self, url: str, instead: str = ACCESS) -> None:
        """MeshError for a URL scheme that fsspec does not know, or whose package is missing."""
        from fsspec.core import url_to_fs

        self.url, self._instead = url, instead
        try:
            password = urlsplit(url).password
            if not url.partition("://")[0] or "\0" in url:
                raise ValueError("this is not a URL")
        except ValueError as error:  # no URL at all
            raise self._refused(error) from None
        if password is not None:
            raise MeshError(
                "a password in a URL would be written to the run's files",
                instead="the settings or the environment that this file system reads",
            )
        try:
            self._fs, self._path = url_to_fs(url)
        except Exception as error:
            raise self._refused(error) from None

    @classmethod
    def writable(cls, url: str, instead: str = ACCESS) -> Place:
        """The same, after a file was written there and removed again; MeshError where that fails."""
        place = cls(url, instead)
        probe = place._at(f".kdmesh-{secrets.token_hex(8)}")
        try:
            place._fs.makedirs(place._path, exist_ok=True)
            place._fs.pipe_file(probe, b"writable")
            place._fs.rm_file(probe)
        except Exception as error:
            raise place._refused(error) from None
        return place

    def below(self, *names: str) -> Place:
        """A folder inside this one."""
        return Place("/".join([self.url.removesuffix("/"), *names]))

    def put(self, root: Path) -> None:
        """Make this folder what the local one is, the results last. RunFailed where that fails, with both named."""
        found = (path for path in root.rglob("*") if path.is_file() and path.name != LOCK)
        files = {path.relative_to(root).as_posix(): path for path in found}
        try:
            for parent in {self._at(name).rpartition("/")[0] for name in files}:
                self._fs.makedirs(parent, exist_ok=True)
            for names in (sorted(set(files) - {RESULTS}), sorted(set(files) & {RESULTS})):
                self._fs.put([str(files[name]) for name in names], [self._at(name) for name in names])
            for gone in self._names() - set(files):  # checkpoints that newer ones have replaced
                self._fs.rm_file(self._at(gone))
        except Exception as error:
            raise RunFailed(
                f"the run's folder could not be collected at {self.url}: {_said(error)}",
                instead=f"copy it from {root}, where it is whole",
            ) from error

    def fetch(self, parent: Path = HERE) -> Path:
        """Bring an interrupted run's folder to a new local one, which is returned. MeshError for what is none."""
        try:
            names = self._names()
            if "manifest.json" not in names:
                raise MeshError("this is not a run's folder", file=self.url, instead="<URL>/<name>/<time>")
            if self._finished(names):
                raise MeshError("this run has finished", file=self.url, instead="kdmesh run, for another one")
            if odd := [name for name in names if ".." in PurePosixPath(name).parts]:
                raise MeshError(f"{odd[0]!r} would be written outside of the run's folder", file=self.url)
            *_, name, stamp = ["run", *(part for part in PurePosixPath(self._path).parts if part not in ("/", ".."))]
            root = fresh(parent / name, stamp)
            for path in {(root / name).parent for name in names}:
                path.mkdir(parents=True, exist_ok=True)
            self._fs.get([self._at(name) for name in sorted(names)], [str(root / name) for name in sorted(names)])
        except MeshError:
            raise
        except Exception as error:
            raise MeshError(f"cannot be fetched: {_said(error)}", file=self.url, instead=self._instead) from None
        return root

    def _finished(self, names: set[str]) -> bool:
        """Whether everything that was asked for is there. That the files are what was written is seen once fetched."""
        if not {RESULTS, SUMS} <= names or not complete(json.loads(self._fs.cat_file(self._at(RESULTS)))):
            return False
        lists = {name: parsed(self._fs.cat_file(self._at(name))) for name in names if PurePosixPath(name).name == SUMS}
        return all(str(PurePosixPath(at).parent / name) in names for at, sums in lists.items() for name in sums)

    def _at(self, name: str) -> str:
        return f"{self._path.removesuffix('/')}/{name}"

    def _names(self) -> set[str]:
        """The files that are there, as paths from here."""
        self._fs.invalidate_cache()
        return {str(found).removeprefix(self._path).strip("/") for found in self._fs.find(self._path)}

    def _refused(self, error: Exception) -> MeshError:
        return MeshError(f"cannot write to {self.url}: {_said(error)}", instead=self._instead)


def _said(error: Any) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
