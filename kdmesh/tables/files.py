"""Open data files, and turn whatever is wrong with one into an error that names it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from kdmesh.errors import MeshError
from kdmesh.streams.host_memory import memory
from kdmesh.tables.kinds import is_packed

PACKED = 500
"""How many times more a .gz file may hold than it has: of tables, even of zeros alone, most have less than a tenth."""

MORE = "or more memory; or `lazy: true`, where the data set has it, of a file that is not packed"
SMALL = 2**28  # bytes up to which a file is unpacked, whatever it is packed from
CELL = 64  # bytes of memory that a cell takes while a table is read, whatever is in it


def memory_limit() -> int:
    """Bytes that one file may hold, unpacked: a quarter of this machine's memory, since it becomes much more there."""
    return memory() // 4


def regular(path: Path, where: str, whole: bool = True) -> None:
    """Refuse what is no file, before it is opened: a pipe or a device may never end.

    ``whole``: it is read into memory, and refused where this machine has no room for it.
    """
    if not path.exists():
        raise MeshError(f"no file {path}", where=where, instead="a path from the mesh file's folder, or absolute")
    if not path.is_file():
        kind = "folder" if path.is_dir() else "pipe" if path.is_fifo() else "device or socket"
        raise MeshError(f"{path} is a {kind}", where=where, instead="a file")
    if whole:
        refuse_large(path, path.stat().st_size, where)


def refuse_large(path: Path, size: int, where: str, lazily: str = "") -> None:
    """Refuse a file of more bytes, unpacked, than this machine has room for.

    ``lazily``: what to write so that it is not read into memory, if anything.
    """
    if size > memory_limit():
        raise MeshError(
            f"{path} holds {'at least ' if is_packed(path) else ''}{size:,} bytes, and data are read into memory: "
            f"this machine takes {memory_limit():,} of a file",
            where=where,
            instead=lazily or f"a smaller file, {MORE}",
        )


def most_cells() -> int:
    """How many cells of a table this machine has room for."""
    return memory() // 2 // CELL


def refuse_cells(path: Path, cells: int, most: int, where: str) -> None:
    """Refuse a table of more cells than :func:`most_cells`: packed, any number of them is a small file."""
    if cells > most:
        raise MeshError(
            f"{path} holds at least {cells:,} cells, and data are read into memory: this machine takes {most:,} of a "
            "file",
            where=where,
            instead=f"fewer rows or columns, {MORE}",
        )


def read_bytes(path: Path, where: str) -> bytes:
    """Return a file's content, unpacked if its name ends in .gz; missing, damaged or empty files are MeshErrors."""
    try:
        regular(path, where)
        if is_packed(path):
            data = _unpacked(path, where)
        else:
            data = path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MeshError(f"{path}: damaged gzip file ({error})", where=where, instead="a complete copy") from None
    except OSError as error:
        raise MeshError(f"{path}: {error.strerror or error}", where=where, instead="a readable file") from None
    if not data:
        raise MeshError(f"{path} is empty", where=where, instead="a file with data")
    return data


def _unpacked(path: Path, where: str) -> bytes:
    """The content of a packed file, in pieces: one that unpacks without end is refused before it fills memory."""
    pieces: list[bytes] = []
    size = 0
    with gzip.open(path) as packed:
        while piece := packed.read(2**24):
            pieces.append(piece)
            size += len(piece)
            refuse_large(path, size, where)
            if size > max(SMALL, PACKED * path.stat().st_size):
                raise MeshError(
                    f"{path} unpacks to more than {PACKED} times its size, as no data do",
                    where=where,
                    instead="the file as it was packed",
                )
    return b"".join(pieces)


def read_text(path: Path, where: str, encoding: str = "") -> str:
    """Return a file's text, by default in UTF-8; a byte-order mark is dropped."""
    data, name = read_bytes(path, where), encoding or "utf-8-sig"
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        said = encoding or "UTF-8"
        raise MeshError(f"{path}: byte {error.start} is not {said}", where=where, instead=f"text in {said}") from None
