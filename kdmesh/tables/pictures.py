"""Images that are decoded when a batch asks for them, here or in processes of their own."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.streams.unread import Unread
from kdmesh.tables.decoding import Decoders, Refused, Setting, decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from kdmesh.tables.decoding import Named

AHEAD = 4  # batches that a selection was asked for and has not read yet: more are forgotten, the oldest first
BY = 255.0  # by what pixels are divided
NOBODY = (0, "")  # the name of an image that is private to others


class Pictures(Unread):
    """Images of archives as samples ``[N, channels, height, width]``, values 0 .. 1.

    ``at``: says where an image stands, by its number and name, for errors; ``where``: the setting that named them.
    ``more``: what to do else about an image that cannot be read; ``workers``: processes that decode; 0: this one does.
    """

    def __init__(
        self,
        setting: Setting,
        names: Sequence[Named],
        at: Callable[[int, Named], str],
        where: str,
        workers: int = 0,
        more: str = "",
    ) -> None:
        super().__init__([len(names), *setting.shape])
        self._setting, self._names, self._at, self._where, self._more = setting, names, at, where, more
        self._workers = _Workers(setting, workers) if workers else None
        self._asked: dict[tuple[int, ...], list[Future[np.ndarray[Any, Any] | Refused]]] = {}  # by rows

    def read(self, rows: Tensor) -> Tensor:
        """Decode images: those that were asked for before are waited for."""
        for archive in self._setting.archives:
            archive.check()
        numbers = rows.tolist()
        names = [self._names[number] for number in numbers]
        parts = [decoded(self._setting, names)] if self._workers is None else self._taken(numbers, names)
        done = 0
        for part in parts:
            if isinstance(part, Refused):
                number = numbers[done + part.number]
                what = f"{self._at(number, self._names[number])}: {part.what}"
                raise MeshError(what, where=self._where, instead=part.instead + self._more)
            done += len(part)
        pixels: Any = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return torch.from_numpy(pixels).float().div_(BY)

    def blanked(self, blank: Tensor) -> Unread:
        """See there; their names, which may say whose they are and of which class, are not here either."""
        made = super().blanked(blank)
        assert isinstance(made, Pictures) and made._blank is not None
        rows = zip(self._names, made._blank.tolist(), strict=False)  # no row of these stands behind the last one
        made._names = [NOBODY if hidden else name for name, hidden in rows]
        return made

    @property
    def asks(self) -> bool:
        """Whether there are processes."""
        return self._workers is not None

    def ask(self, rows: Tensor) -> None:
        """Have images decoded by the processes, if there are any."""
        if self._workers is not None and (key := tuple(rows.tolist())) not in self._asked:
            while len(self._asked) >= AHEAD:
                for one in self._asked.pop(next(iter(self._asked))):
                    one.cancel()
            self._asked[key] = self._workers.ask([self._names[number] for number in key])

    def _taken(self, numbers: list[int], names: list[Named]) -> list[np.ndarray[Any, Any] | Refused]:
        """What the processes say of images, whether they were asked before or not."""
        assert self._workers is not None
        found = self._asked.pop(tuple(numbers), None)
        return [one.result() for one in (self._workers.ask(names) if found is None else found)]

    def _twin(self) -> Unread:
        """See there; what one selection was asked for is nothing to another, however many there are."""
        made = super()._twin()
        assert isinstance(made, Pictures)
        made._asked = {}
        return made

    def __getstate__(self) -> dict[str, Any]:
        """In another process nothing was asked for."""
        return {**vars(self), "_asked": {}}


class _Workers:
    """The processes of one set of images in this process, started when first asked."""

    def __init__(self, setting: Setting, count: int) -> None:
        self._setting, self._count = setting, count
        self._decoders: Decoders | None = None

    def ask(self, names: Sequence[Named]) -> list[Future[np.ndarray[Any, Any] | Refused]]:
        """Have images decoded."""
        if self._decoders is None:
            self._decoders = Decoders(self._setting, self._count)
            weakref.finalize(self, self._decoders.close)
        return self._decoders.ask(names)

    def __getstate__(self) -> dict[str, Any]:
        """In another process there are others."""
        return {"_setting": self._setting, "_count": self._count, "_decoders": None}
