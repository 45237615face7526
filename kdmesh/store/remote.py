"""A store at a URL of any file system that fsspec knows: whole files are fetched into a folder here, and sent there.

Files never change and are named by their content, so that nothing has to be locked: a file that is not whole, since
somebody is just sending it, has another sum than its name says, and is not taken yet.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdmesh.errors import MeshError
from kdmesh.files import aside
from kdmesh.store.card import CARD
from kdmesh.store.mapped import SUFFIX
from kdmesh.store.root import SHARDS, VERSION
from kdmesh.store.shards import SHARED

ACCESS = "the package and the rights that this file system needs, or a folder"
AGAIN = 60.0  # seconds after which it is looked again what has come
HEAD = 2**14  # bytes of a file in which its header mostly is
CHUNK = 2**22  # bytes that are read at a time


def is_url(where: str | Path) -> bool:
    """Whether a place is a URL, rather than a folder."""
    return "://" in str(where)


class Remote:
    """A folder behind a URL. Every file system fails in its own ways: :class:`Unreachable` stands for all of them."""

    def __init__(self, url: str) -> None:
        """MeshError for a URL that is none, or whose package is missing. Nothing is read or written yet."""
        try:
            split = urlsplit(url)
            secret = split.password is not None or split.query
            if not url.partition("://")[0] or "\0" in url:
                raise ValueError("this is not a URL")
        except ValueError as error:
            raise MeshError(f"{url!r}: {error}", where="store", instead=ACCESS) from None
        if secret:
            what = "a password in a URL, or a query, which may hold a key, would be written to notes and files"
            instead = "the settings or the environment that this file system reads"
            raise MeshError(what, where="store", instead=instead)
        from fsspec.core import url_to_fs

        try:
            self._fs, path = url_to_fs(url)
        except Exception as error:
            raise MeshError(f"{url}: {_said(error)}", where="store", instead=ACCESS) from None
        self.url, self._path = url, path.rstrip("/")
        self._looked: dict[str, float] = {}

    @property
    def key(self) -> str:
        """What the folder here is called in which its files are."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def fetch(self, digest: str, folder: Path) -> None:
        """Bring an entry's files that a folder lacks: shared parts first. Unreachable where that fails."""
        if time.monotonic() - self._looked.get(digest, -AGAIN) < AGAIN:
            return
        try:
            names = self.names(digest)
            for name in sorted(names, key=lambda name: not name.startswith(SHARED)):
                if names[name] and not (folder / name).exists():
                    with suppress(_Partial):
                        self._bring(f"{digest[:2]}/{digest}/{name}", folder / name)
        except Unreachable:
            raise
        except Exception as error:
            raise Unreachable(f"{self.url}: {_said(error)}") from error
        self._looked[digest] = time.monotonic()

    def send(self, digest: str, folder: Path, names: list[str]) -> None:
        """Send an entry's files, in this order, those that are there already left out. Unreachable where that fails."""
        try:
            there = self.names(digest)
            for name in names:
                size = (folder / name).stat().st_size
                if there.get(name) != size:
                    at = self._at(f"{digest[:2]}/{digest}/{name}")
                    self._fs.makedirs(at.rpartition("/")[0], exist_ok=True)
                    self._fs.put_file(str(folder / name), at)
        except Unreachable:
            raise
        except Exception as error:
            raise Unreachable(f"{self.url}: {_said(error)}") from error

    def names(self, digest: str = "") -> dict[str, int]:
        """The files of an entry and their bytes, by path from its folder; without one, of all, from the store's.

        Unreachable where they cannot be listed.
        """
        self._fs.invalidate_cache()
        base = self._at(f"{digest[:2]}/{digest}" if digest else "")
        try:
            found: dict[str, Any] = self._fs.find(base.rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise Unreachable(f"{self.url}: {_said(error)}") from error
        root = base.strip("/")
        sizes = {str(at).strip("/").removeprefix(root).strip("/"): one.get("size") for at, one in found.items()}
        return {name: int(size or 0) for name, size in sizes.items() if _ours(name, digest)}

    def read(self, name: str) -> bytes:
        """A small file as a whole, by its path from the store's folder. Unreachable where that fails."""
        try:
            return bytes(self._fs.cat_file(self._at(name)))
        except Exception as error:
            raise Unreachable(f"{self.url}: {_said(error)}") from error

    def rows(self, name: str) -> int:
        """How many rows a shard has, by its header; 0 where that cannot be read."""
        try:
            head = bytes(self._fs.cat_file(self._at(name), start=0, end=HEAD))
            length = 8 + int.from_bytes(head[:8], "little")
            if length > len(head):
                head = bytes(self._fs.cat_file(self._at(name), start=0, end=length))
            return int(json.loads(head[8:length])["rows"]["shape"][0])
        except Exception:  # damaged, or gone: verify() tells
            return 0

    def damaged(self) -> Iterator[str]:
        """Read all files back: those whose bytes are not what their names say. Unreachable where that fails."""
        try:
            for name in sorted(self.names()):
                if name.endswith(SUFFIX):
                    sum_of = hashlib.sha256()
                    with self._fs.open(self._at(name), "rb") as file:
                        while part := file.read(CHUNK):
                            sum_of.update(part)
                    if sum_of.hexdigest() + SUFFIX != name.rpartition("/")[2]:
                        yield name
        except Unreachable:
            raise
        except Exception as error:
            raise Unreachable(f"{self.url}: {_said(error)}") from error

    def _bring(self, name: str, path: Path) -> None:
        """Fetch a file, if it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as draft:
            self._fs.get_file(self._at(name), str(draft))
            if path.name.endswith(SUFFIX):
                with draft.open("rb") as file:
                    whole = hashlib.file_digest(file, "sha256").hexdigest() + SUFFIX == path.name
                if not whole:
                    raise _Partial

    def _at(self, name: str) -> str:
        return f"{self._path}/{VERSION}/{name}"


class Unreachable(Exception):
    """What a file system said as it was read or written."""


class _Partial(Exception):
    """A file is not whole."""


def _ours(name: str, digest: str) -> bool:
    """Whether a path is one that a store has: nothing that leads elsewhere."""
    parts = name.split("/") if digest else name.split("/")[2:]
    return parts == [CARD] or (len(parts) == 2 and parts[0] in (SHARDS, SHARED) and _plain(parts[1]))


def _plain(name: str) -> bool:
    stem = name.removesuffix(SUFFIX)
    return name.endswith(SUFFIX) and len(stem) == 64 and all(one in "0123456789abcdef" for one in stem)


def _said(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
