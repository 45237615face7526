"""Named arrays of a file: numpy's .npz, never its pickles, or safetensors."""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.tables.files import refuse_large, regular
from kdmesh.tables.mapped import safetensors

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = (".npz", ".safetensors")


def read_arrays(file: Path, where: str) -> dict[str, Tensor]:
    """The arrays of a file by name. MeshError for one of neither kind, or that holds something else."""
    regular(file, where)
    if file.suffix == ".npz":
        return read_npz(file, where)
    try:
        return {name: one.tensor(np.array(one.open())) for name, one in safetensors(file).items()}
    except Exception as error:  # of safetensors, which has an error of its own, OSError, ValueError
        raise MeshError(f"{file}: {error}", where=where, instead="a complete .safetensors file") from None


def read_npz(file: Path, where: str, more: str = "") -> dict[str, Tensor]:
    """The arrays of a .npz by name. ``more``: what to do else about one that is too large."""
    found: dict[str, Tensor] = {}
    key = ""
    try:
        with zipfile.ZipFile(file) as packed:
            refuse_large(file, sum(part.file_size for part in packed.infolist()), where, more)
        with np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an archive of named arrays")
            for key in archive.files:
                array = archive[key]
                found[key] = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (ValueError, TypeError, EOFError, OSError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise MeshError(
            f"{file}: {f'array {key!r}: ' if key else ''}{error}",
            where=where,
            instead="an archive of numpy.savez with arrays of numbers; pickled objects are never read",
        ) from None
    return found
