"""Open data files, and turn whatever is wrong with one into an error that names it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from kdmesh.errors import MeshError


def read_bytes(path: Path, where: str) -> bytes:
    """Return a file's content, unpacked if its name ends in .gz; missing, damaged or empty files are MeshErrors."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise MeshError(
            f"no file {path}", where=where, instead="a path from the mesh file's folder, or absolute"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MeshError(f"{path}: damaged gzip file ({error})", where=where, instead="a complete copy") from None
    except OSError as error:
        raise MeshError(f"{path}: {error.strerror or error}", where=where, instead="a readable file") from None
    if not data:
        raise MeshError(f"{path} is empty", where=where, instead="a file with data")
    return data


def read_text(path: Path, where: str) -> str:
    """Return a file's text, which must be UTF-8 (a byte-order mark is dropped)."""
    try:
        return read_bytes(path, where).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MeshError(f"{path}: byte {error.start} is not UTF-8", where=where, instead="text in UTF-8") from None
