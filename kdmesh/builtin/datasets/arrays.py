"""Arrays from files: numpy's .npy and .npz, never its pickles, or safetensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from kdmesh.errors import MeshError, nearest
from kdmesh.streams.checks import features, targets
from kdmesh.streams.from_torch import join
from kdmesh.streams.host_memory import is_large
from kdmesh.streams.table import Table
from kdmesh.streams.unread import Unread
from kdmesh.tables import mapped
from kdmesh.tables.array_files import read_npz
from kdmesh.tables.files import refuse_large, regular

WHERE = "data.dataset.arrays.path"
PARTS = {"train": "", "validation": "_validation", "test": "_test"}
KEYS = [f"{name}{ending}" for ending in PARTS.values() for name in ("x", "y")]
LATER = "numpy.save x.npy, y.npy ... in a folder, or .safetensors: these are mapped"


def arrays(path: str, classes: int | None = None, lazy: bool | None = None) -> Table:
    """Return ``x [N, ...]`` (unscaled, as float32) and ``y``: classes ``[N]``, values ``[N, T]`` or indicators ``[N,
    K]``; ``x_validation`` and ``x_test`` with their labels become official splits. Without ``y`` the data are
    unlabelled, and ``classes`` must be given. ``lazy``: rows of x are read when a batch asks for them.
    """
    file = Path(path)
    found = _found(file, lazy)
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


def _table(file: Path, found: dict[str, Tensor | Unread], ending: str, classes: int | None) -> Table:
    x = found[f"x{ending}"]
    x = x if isinstance(x, Unread) else features(x, f"{file}: x{ending}", WHERE)
    if ("y" in found) != (f"y{ending}" in found):
        raise MeshError(f"{file}: labels for some parts only", where=WHERE, instead=f"'y' and 'y{ending}', or neither")
    if "y" not in found:
        assert classes is not None
        return Table(x, None, classes, source=str(file))
    given = found[f"y{ending}"]
    assert isinstance(given, Tensor)
    y, count = targets(given, len(x), classes or None, f"{file}: y{ending}", WHERE)
    return Table(x, y, count, source=str(file))


def _found(file: Path, lazy: bool | None) -> dict[str, Tensor | Unread]:
    """Every array of a file or folder by name; those of samples unread where they are to be ``lazy``."""
    if file.suffix == ".npz":
        if lazy:
            what = f"{file} is an archive, of which arrays are read whole"
            raise MeshError(what, where="data.dataset.arrays.lazy", instead=LATER)
        regular(file, WHERE)
        return {**read_npz(file, WHERE, LATER)}
    stored = _folder(file) if file.is_dir() else _safetensors(file)
    size = sum(one.size for name, one in stored.items() if name.startswith("x"))
    later = is_large(size) if lazy is None else lazy
    return {name: _values(one, name, later and name.startswith("x")) for name, one in stored.items()}


def _values(stored: mapped.Stored, name: str, later: bool) -> Tensor | Unread:
    what = f"{stored.file}: {name}"
    if later:
        return mapped.Mapped(stored, what, WHERE)
    refuse_large(stored.file, stored.size, WHERE, "lazy: true" if name.startswith("x") else "")
    try:
        return stored.tensor(np.array(stored.open()))
    except (OSError, ValueError, TypeError) as error:
        raise MeshError(f"{what}: {error}", where=WHERE, instead="an array of numbers") from None


def _folder(folder: Path) -> dict[str, mapped.Stored]:
    """The arrays in the .npy files of a folder, by their names."""
    found = {}
    for file in sorted(folder.glob("*.npy")):
        regular(file, WHERE, whole=False)
        try:
            found[file.stem] = mapped.npy(file)
            kind = np.dtype(found[file.stem].kind)
            if kind.kind not in "biuf" or kind.itemsize > 8:  # torch has none of more than 64 bits
                raise ValueError(f"it is of type {kind}")
        except (ValueError, TypeError, EOFError, OSError) as error:
            instead = "an array of numbers that numpy.save wrote, rows after rows; pickled objects are never read"
            raise MeshError(f"{file}: {error}", where=WHERE, instead=instead) from None
    if not found:
        raise MeshError(f"{folder} is a folder without .npy files", where=WHERE, instead="x.npy and y.npy in it")
    return found


def _safetensors(file: Path) -> dict[str, mapped.Stored]:
    from safetensors import SafetensorError

    if file.suffix != ".safetensors":
        raise MeshError(
            f"{file} has an unknown format",
            where=WHERE,
            instead="a .npz or .safetensors file, or a folder of .npy files",
        )
    regular(file, WHERE, whole=False)
    try:
        return mapped.safetensors(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise MeshError(f"{file}: {error}", where=WHERE, instead="a complete .safetensors file") from None
