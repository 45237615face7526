"""Images of a data set of the Hugging Face `datasets` library, whose Arrow files are mapped, not read."""

from __future__ import annotations

import json
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from kdmesh.errors import MeshError
from kdmesh.tables.archive import Archive
from kdmesh.tables.kinds import SAVED
from kdmesh.tables.parquet import read_folder, read_hub
from kdmesh.tables.unchanged import Unchanged


class Origin(NamedTuple):
    """A folder that `save_to_disk` made, or an id of the hub with its configuration and revision."""

    path: str
    hub: tuple[str | None, str | None] | None = None

    def splits(self, where: str) -> dict[str, Any]:
        """Its splits by name."""
        return read_folder(Path(self.path), where) if self.hub is None else read_hub(self.path, *self.hub, where)


class Arrow(Archive):
    """The images in one column of a split; a name is the number of a row."""

    def __init__(self, origin: Origin, where: str, split: str, column: str, found: Any = None) -> None:
        """``found``: the split itself, where it is open already."""
        super().__init__(Path(origin.path), where)
        self.origin, self.split, self.column = origin, split, column
        if found is not None:
            self.__dict__["_found"] = _raw(found, column)

    @cached_property
    def _found(self) -> Any:
        return _raw(self.origin.splits(self.where)[self.split], self.column)

    @cached_property
    def _unchanged(self) -> Unchanged:
        return Unchanged([one["filename"] for one in self._found.cache_files], self.where)

    @property
    def names(self) -> list[str]:
        """All rows."""
        return [str(row) for row in range(len(self._found))]

    def check(self) -> None:
        """Ask its Arrow files."""
        self._unchanged.check()

    def at(self, name: str) -> str:
        """The row."""
        return f"{self.origin.path}, split {self.split}, row {name}"

    def read(self, name: str) -> bytes:
        """The bytes of an image as they were saved: in the row, or in the file that it names."""
        self.check()
        cell = self._found[int(name)][self.column] or {}
        data, path = cell.get("bytes"), cell.get("path")
        try:
            return data if data is not None else Path(path or "").read_bytes()
        except OSError as error:
            raise self.refuse(name, f"no image ({error.strerror or error})", "an image in every row") from None

    def told(self) -> dict[str, str]:
        """Where it is from, its split and column."""
        return {"origin": json.dumps(self.origin), "where": self.where, "split": self.split, "column": self.column}

    @classmethod
    def of(cls, told: dict[str, str]) -> Arrow:
        """The same in another process."""
        path, hub = json.loads(told["origin"])
        origin = Origin(path, None if hub is None else (hub[0], hub[1]))
        return cls(origin, told["where"], told["split"], told["column"])

    def __getstate__(self) -> dict[str, Any]:
        """The same: other processes map the files themselves."""
        return {"origin": self.origin, "where": self.where, "split": self.split, "column": self.column}


def is_saved(path: Path) -> bool:
    """Whether a folder is one that `save_to_disk` made."""
    return any((path / name).is_file() for name in SAVED)


def image_column(split: Any, wanted: str | None, source: str, where: str) -> str:
    """The column with images: the one that is asked for, or the only one. MeshError where there is none."""
    image: Any = import_module("datasets").Image
    found = [name for name, kind in split.features.items() if isinstance(kind, image)]
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted is None or wanted not in found:
        said = "no column of images" if wanted is None else f"column {wanted!r} has no images"
        instead = f"image: {' or '.join(found)}" if found else "a data set with a column of images"
        raise MeshError(f"{source}: {said}", where=where, instead=instead)
    return wanted


def _raw(split: Any, column: str) -> Any:
    """One column of a split, whose images stay the bytes that they are."""
    return split.select_columns([column]).cast_column(column, import_module("datasets").Image(decode=False))
