"""Files in a folder, or inside a .zip or .tar, which is read without being unpacked."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from kdmesh.errors import MeshError, may_quote, quoted
from kdmesh.tables.files import read_bytes
from kdmesh.tables.kinds import is_packed
from kdmesh.tables.unchanged import Unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = 2**28  # bytes of one file inside
SMALLER = "a smaller file"
DEEPEST = 32  # folders in each other
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini")
"""What systems leave beside files; so are names that begin with a dot."""


class Archive(ABC):
    """Files by name, whatever holds them: names have slashes, and are in sorted order."""

    def __init__(self, path: Path, where: str) -> None:
        """``where``: the setting that names it, for errors."""
        self.path, self.where = path, where

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The names of all files, sorted part by part; none that is hidden."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file's content; MeshError for one that is not there, is damaged, or holds too much."""

    def check(self) -> None:  # noqa: B027  # a folder has files of their own
        """Changed, if the one file that holds all was written to since it was opened."""

    def at(self, name: str) -> str:
        """Say where a file stands."""
        return f"{self.path}: {name}" if may_quote() else f"{self.path}: {quoted(name)}"

    def refuse(self, name: str, what: str, instead: str) -> MeshError:
        """The error of one file."""
        return MeshError(f"{self.at(name)}: {what}", where=self.where, instead=instead)

    def told(self) -> dict[str, str]:
        """What another process makes it of, see :mod:`kdmesh.tables.decoding`."""
        return {"path": str(self.path), "where": self.where}

    def __getstate__(self) -> dict[str, Any]:
        """Of other processes each opens it for itself."""
        return {"path": self.path, "where": self.where}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # of the class that it is


class Folder(Archive):
    """A folder of the file system. Links are followed: they are its owner's."""

    @cached_property
    def names(self) -> list[str]:
        """All files below it; MeshError for a folder in it that cannot be read."""

        def unreadable(error: OSError) -> None:
            what = f"{error.filename if may_quote() else self.path}: {error.strerror or error}"
            raise MeshError(what, where=self.where, instead="a folder of which all can be read") from None

        found = []
        for folder, below, files in os.walk(self.path, onerror=unreadable, followlinks=True):
            below[:] = [name for name in below if not _hidden(name)]
            if len(Path(folder).relative_to(self.path).parts) > DEEPEST:
                raise MeshError(
                    f"{folder} is {DEEPEST} folders deep", where=self.where, instead="fewer, without a loop"
                )
            inside = Path(folder).relative_to(self.path)
            found += [(inside / name).as_posix() for name in files if not _hidden(name)]
        return _sorted(found)

    def at(self, name: str) -> str:
        """The file's own path."""
        return str(self.path / name) if may_quote() else super().at(name)

    def read(self, name: str) -> bytes:
        """A file below it, or elsewhere, if a table says so."""
        path = self.path / name
        try:
            if not path.is_file():
                raise MeshError(f"no file {self.at(name)}", where=self.where, instead="a path that is there")
            if path.stat().st_size > LARGEST:
                raise self.refuse(name, _too_large(path.stat().st_size), SMALLER)
            return path.read_bytes()
        except (OSError, ValueError) as error:
            why = f": {error}" if may_quote() else ""
            what = f"{self.at(name)}{why or ' cannot be read'}"
            raise MeshError(what, where=self.where, instead="a readable file") from None


class Member(NamedTuple):
    """Something in an archive. ``place``: by what its content is found; ``odd``: why it is none that is read, and what
    to do instead.
    """

    name: str
    is_folder: bool
    size: int
    place: Any
    odd: tuple[str, str] | None = None


class Packed(Archive):
    """Files in one file. Names that lead out of it are refused, though nothing is ever unpacked to a folder."""

    kind: ClassVar[str]
    faults: ClassVar[tuple[type[Exception], ...]]
    """What its library raises for a damaged one."""

    @abstractmethod
    def opened(self) -> Any:
        """The archive, open."""

    @abstractmethod
    def members(self, file: Any) -> Iterator[Member]:
        """All that is in it."""

    @abstractmethod
    def content(self, file: Any, one: Member) -> bytes:
        """A file's content."""

    @cached_property
    def _open(self) -> tuple[Any, dict[str, Member], threading.Lock, Unchanged]:
        found: dict[str, Member] = {}
        unchanged = Unchanged([self.path], self.where)
        try:
            file = self.opened()
            for one in self.members(file):
                name = _inside(self, one.name)
                if one.is_folder or _hidden(*PurePosixPath(name).parts):
                    continue
                if one.odd is not None:
                    raise self.refuse(name, *one.odd)
                if name in found:
                    raise self.refuse(name, "is in it twice", "an archive with each file once")
                found[name] = one
        except self.faults as error:
            what = f"{self.path}: damaged ({error})"
            raise MeshError(what, where=self.where, instead=f"a complete {self.kind}") from None
        return file, found, threading.Lock(), unchanged

    def check(self) -> None:
        """Ask the archive itself."""
        self._open[-1].check()

    @cached_property
    def names(self) -> list[str]:
        """All files in it."""
        return _sorted(self._open[1])

    def read(self, name: str) -> bytes:
        """A file in it, no more than it says that it has."""
        file, found, lock, _ = self._open
        self.check()
        if (one := found.get(_inside(self, name))) is None:
            raise self.refuse(name, "is not in it", "a path inside the archive")
        if one.size > LARGEST:
            raise self.refuse(name, _too_large(one.size), SMALLER)
        try:
            with lock:
                return self.content(file, one)
        except self.faults as error:
            raise self.refuse(name, f"damaged ({error})", f"a complete {self.kind}") from None


class Zipped(Packed):
    """A .zip."""

    kind = ".zip"
    faults = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)

    def opened(self) -> Any:
        """Its table of contents."""
        return zipfile.ZipFile(self.path)

    def members(self, file: Any) -> Iterator[Member]:
        """What that table lists; encrypted files are none that is read."""
        for info in file.infolist():
            odd = ("is encrypted", "a .zip without a password") if info.flag_bits & 1 else None
            yield Member(info.filename, info.is_dir(), info.file_size, info, odd)

    def content(self, file: Any, one: Member) -> bytes:
        """With its checksum."""
        with file.open(one.place) as inside:
            data: bytes = inside.read(LARGEST)
            return data


class Tarred(Packed):
    """A .tar, plain or packed by gzip: then it is unpacked into memory. Links and devices in it are refused."""

    kind = ".tar"
    faults = (tarfile.TarError, OSError, EOFError, ValueError)

    def opened(self) -> Any:
        """Its bytes."""
        return io.BytesIO(read_bytes(self.path, self.where)) if is_packed(self.path) else self.path.open("rb")

    def members(self, file: Any) -> Iterator[Member]:
        """What stands in it, one after the other."""
        with tarfile.open(fileobj=file, mode="r:") as inside:
            for one in inside:
                kind = "link" if one.issym() or one.islnk() else "device, a pipe or a sparse file"
                plain = one.isreg() and not one.issparse()
                odd = None if plain else (f"is a {kind}", "an archive of files and folders")
                yield Member(one.name, one.isdir(), one.size, one.offset_data, odd)

    def content(self, file: Any, one: Member) -> bytes:
        """As many bytes as its header says."""
        file.seek(one.place)
        data: bytes = file.read(one.size)
        if len(data) < one.size:
            raise EOFError(f"{len(data):,} of {one.size:,} bytes")
        return data


def is_archive(path: Path) -> bool:
    """Whether a file's name is one of an archive."""
    return path.name.lower().endswith(ENDINGS)


def open_archive(path: Path, where: str) -> Archive:
    """A folder or an archive by its path; MeshError where there is neither."""
    if path.is_dir():
        return Folder(path, where)
    if not path.exists():
        instead = "a path from the mesh file's folder, or absolute"
        raise MeshError(f"no file or folder {path}", where=where, instead=instead)
    if not path.is_file() or not is_archive(path):
        raise MeshError(f"{path} is no folder and no archive", where=where, instead=f"a folder, {', '.join(ENDINGS)}")
    return Zipped(path, where) if path.suffix.lower() == ".zip" else Tarred(path, where)


def _inside(archive: Archive, name: str) -> str:
    """A name in the one form in which it is known; MeshError for one that leads out of the archive."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/") or PureWindowsPath(name).drive:
        what = f"{archive.path}: the path {name!r} leads outside of it"
        raise MeshError(what, where=archive.where, instead="an archive whose paths stay inside")
    return PurePosixPath(name).as_posix()


def _hidden(*parts: str) -> bool:
    return any(part.startswith(".") or part in IGNORED for part in parts)


def _sorted(names: Any) -> list[str]:
    """By folder, then by name: the same order whatever holds the files."""
    return sorted(names, key=lambda name: name.split("/"))


def _too_large(size: int) -> str:
    return f"holds {size:,} bytes, more than the {LARGEST:,} of one file"
