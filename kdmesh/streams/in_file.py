"""Numbers that are too many for memory: written to a file of the temporary folder, which the system then maps.

The file has no name: it goes with the process, however that ends.
"""

from __future__ import annotations

from contextlib import suppress
from tempfile import TemporaryFile, gettempdir
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.files import reason
from kdmesh.streams.unread import Unread

WHERE = "data.dataset"


class InFile:
    """Numbers of one ``kind``, as numpy calls it, one part after the other."""

    def __init__(self, kind: str) -> None:
        self._kind, self._count = np.dtype(kind), 0
        self._file = TemporaryFile(prefix="kdmesh-")  # noqa: SIM115  # it is there as long as this is

    def add(self, values: Any) -> None:
        """Write numbers behind those that are there."""
        part = np.ascontiguousarray(values, self._kind)
        try:
            self._file.write(part.data.cast("B") if part.size else b"")
            self._file.flush()
        except OSError as error:
            what = f"samples that are not in memory cannot be written to {gettempdir()}: {reason(error)}"
            instead = "the variable TMPDIR: a folder on a disk with room for them"
            raise MeshError(what, where=WHERE, instead=instead) from None
        self._count += part.size

    def tensor(self) -> Tensor:
        """All of them, mapped, ``[n]``; nothing more can be added."""
        with self._file:  # what is mapped stays
            if not self._count:
                return torch.from_numpy(np.empty(0, self._kind))
            found: Any = np.memmap(self._file, self._kind, "r+", shape=(self._count,))  # its own class is slow to index
            return torch.from_numpy(np.asarray(found))

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            self._file.close()  # of numbers that nobody asked for, since one of them was wrong


class UnreadNumbers(Unread):
    """Samples ``[N, ...]`` float32 of such a file. Each process that reads the data makes one of its own."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(values.shape)
        self._values = values

    def read(self, rows: Tensor) -> Tensor:
        """Copy rows out of the file."""
        return self._values.index_select(0, rows)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: the file has no name by which another process could find it."""
        raise MeshError(
            "tables that are not in memory cannot be sent to a process of its own, as private samples are",
            where=WHERE,
            instead="arrays of .npy or .safetensors, which are mapped wherever they are; or backend: inline",
        )
