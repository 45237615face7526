"""Arrays from a file: numpy's .npz, never its pickles, or safetensors."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError, nearest
from kdmesh.streams.checks import features, targets
from kdmesh.streams.from_torch import join
from kdmesh.streams.table import Table
from kdmesh.tables.files import refuse_large, regular

WHERE = "data.dataset.arrays.path"
PARTS = {"train": "", "validation": "_validation", "test": "_test"}
KEYS = [f"{name}{ending}" for ending in PARTS.values() for name in ("x", "y")]


def arrays(path: str, classes: int | None = None) -> Table:
    """Return ``x [N, ...]`` (unscaled, as float32) and ``y``: classes ``[N]``, values ``[N, T]`` or indicators ``[N,
    K]``; ``x_validation`` and ``x_test`` with their labels become official splits. Without ``y`` the data are
    unlabelled, and ``classes`` must be given.
    """
    file = Path(path)
    readers = {".npz": _npz, ".safetensors": _safetensors}
    if file.suffix not in readers:
        raise MeshError(f"{file} has an unknown format", where=WHERE, instead="a .npz or .safetensors file")
    regular(file, WHERE)
    found = readers[file.suffix](file)
    for key in found:
        if key not in KEYS:
            raise MeshError(f"{file}: unknown array {key!r}", where=WHERE, instead=nearest(key, KEYS, "arrays"))
    if "x" not in found:
        raise MeshError(f"{file}: no array 'x'", where=WHERE, instead="arrays x and y")
    if "y" not in found and classes is None:
        raise MeshError(
            f"{file}: no array 'y'", where=WHERE, instead="arrays x and y, or `classes` for unlabelled data"
        )
    tables: dict[str, Table] = {}
    for part, ending in PARTS.items():
        if f"x{ending}" in found:
            tables[part] = _table(file, found, ending, classes)
            classes = tables[part].classes  # a test label beyond the training labels is an error, not a class
        elif f"y{ending}" in found:
            raise MeshError(f"{file}: 'y{ending}' without 'x{ending}'", where=WHERE)
    return join(tables["train"], tables.get("validation"), tables.get("test"))


def _table(file: Path, found: dict[str, Tensor], ending: str, classes: int | None) -> Table:
    x = features(found[f"x{ending}"], f"{file}: x{ending}", WHERE)
    if ("y" in found) != (f"y{ending}" in found):
        raise MeshError(f"{file}: labels for some parts only", where=WHERE, instead=f"'y' and 'y{ending}', or neither")
    if "y" not in found:
        assert classes is not None
        return Table(x, None, classes, source=str(file))
    y, count = targets(found[f"y{ending}"], len(x), classes or None, f"{file}: y{ending}", WHERE)
    return Table(x, y, count, source=str(file))


def _npz(file: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    key = ""
    try:
        with zipfile.ZipFile(file) as packed:
            refuse_large(file, sum(part.file_size for part in packed.infolist()), WHERE)
        with np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an archive of named arrays")
            for key in archive.files:
                array = archive[key]
                found[key] = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (ValueError, TypeError, EOFError, OSError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise MeshError(
            f"{file}: {f'array {key!r}: ' if key else ''}{error}",
            where=WHERE,
            instead="an archive of numpy.savez with arrays of numbers; pickled objects are never read",
        ) from None
    return found


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise MeshError(f"{file}: {error}", where=WHERE, instead="a complete .safetensors file") from None
