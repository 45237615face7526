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
from typing import Any

from kdmesh.errors import MeshError
from kdmesh.tables.files import read_bytes

LARGEST = 2**28  # bytes of one file inside
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

    def at(self, name: str) -> str:
        """Say where a file stands."""
        return f"{self.path}: {name}"

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
        """All files below it."""
        found = []
        for folder, below, files in os.walk(self.path, followlinks=True):
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
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        """A file below it, or elsewhere, if a table says so."""
        path = self.path / name
        try:
            if not path.is_file():
                raise MeshError(f"no file {path}", where=self.where, instead="a path that is there")
            if path.stat().st_size > LARGEST:
                raise self.refuse(name, _too_large(path.stat().st_size), SMALLER)
            return path.read_bytes()
        except (OSError, ValueError) as error:
            raise MeshError(f"{path}: {error}", where=self.where, instead="a readable file") from None


DEEPEST = 32
SMALLER = "a smaller file"


class Zipped(Archive):
    """A .zip. Names that lead out of it are refused, though nothing is ever unpacked."""

    @cached_property
    def _open(self) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo], threading.Lock]:
        try:
            file = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise MeshError(f"{self.path}: damaged ({error})", where=self.where, instead="a complete .zip") from None
        found: dict[str, zipfile.ZipInfo] = {}
        for info in file.infolist():
            name = _inside(self, info.filename)
            if info.is_dir() or _hidden(*PurePosixPath(name).parts):
                continue
            if info.flag_bits & 1:
                raise self.refuse(name, "is encrypted", "a .zip without a password")
            _once(self, name, found)
            found[name] = info
        return file, found, threading.Lock()

    @cached_property
    def names(self) -> list[str]:
        """All files in it."""
        return _sorted(self._open[1])

    def read(self, name: str) -> bytes:
        """A file in it, no more than it says that it has, with its checksum."""
        file, found, lock = self._open
        info = found.get(_inside(self, name))
        if info is None:
            raise self.refuse(name, "is not in it", "a path inside the archive")
        if info.file_size > LARGEST:
            raise self.refuse(name, _too_large(info.file_size), SMALLER)
        try:
            with lock, file.open(info) as inside:
                return inside.read(LARGEST)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise self.refuse(name, f"damaged ({error})", "a complete .zip") from None


class Tarred(Archive):
    """A .tar, plain or packed by gzip: then it is unpacked into memory. Links and devices in it are refused."""

    @cached_property
    def _open(self) -> tuple[Any, dict[str, tuple[int, int]], threading.Lock]:
        packed = self.path.suffix in (".gz", ".tgz")
        found: dict[str, tuple[int, int]] = {}
        try:
            file: Any = io.BytesIO(read_bytes(self.path, self.where)) if packed else self.path.open("rb")
            with tarfile.open(fileobj=file, mode="r:") as members:
                for one in members:
                    name = _inside(self, one.name)
                    if one.isdir() or _hidden(*PurePosixPath(name).parts):
                        continue
                    if not one.isreg() or one.issparse():
                        kind = "link" if one.issym() or one.islnk() else "device, a pipe or a sparse file"
                        raise self.refuse(name, f"is a {kind}", "an archive of files and folders")
                    _once(self, name, found)
                    found[name] = one.offset_data, one.size
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise MeshError(f"{self.path}: damaged ({error})", where=self.where, instead="a complete .tar") from None
        return file, found, threading.Lock()

    @cached_property
    def names(self) -> list[str]:
        """All files in it."""
        return _sorted(self._open[1])

    def read(self, name: str) -> bytes:
        """A file in it."""
        file, found, lock = self._open
        if (place := found.get(_inside(self, name))) is None:
            raise self.refuse(name, "is not in it", "a path inside the archive")
        start, size = place
        if size > LARGEST:
            raise self.refuse(name, _too_large(size), SMALLER)
        with lock:
            file.seek(start)
            data: bytes = file.read(size)
        if len(data) < size:
            raise self.refuse(name, f"damaged ({len(data):,} of {size:,} bytes)", "a complete .tar")
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


def _once(archive: Archive, name: str, found: dict[str, Any]) -> None:
    if name in found:
        raise archive.refuse(name, "is in it twice", "an archive with each file once")


def _hidden(*parts: str) -> bool:
    return any(part.startswith(".") or part in IGNORED for part in parts)


def _sorted(names: Any) -> list[str]:
    """By folder, then by name: the same order whatever holds the files."""
    return sorted(names, key=lambda name: name.split("/"))


def _too_large(size: int) -> str:
    return f"holds {size:,} bytes, more than the {LARGEST:,} of one file"
