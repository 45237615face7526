"""Logits that are made when they are asked for: over a vocabulary of 150,000 words they fill gigabytes.

A language model's logits are hidden rows times one wide layer. Both together are small; their product is made in chunks
of rows, used, and overwritten by the next chunk.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from kdmesh.signals.crossing import crosses_hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BLOCK = 2**18  # elements: what is worked on at a time stays in a core's cache


class Lazy:
    """Rows ``[N, V]`` of logits or probabilities. The base knows its size; a subclass makes the rows.

    It calls ``super().__init__(shape, dtype, device, requires_grad)``, and writes ``rows``, ``leaves``, ``of``,
    ``narrow``, ``detach`` and ``to``. Where it is to cross between hosts and be kept as it is, not made, it also writes
    ``pack`` and the class method ``restore(parts)``, and its offer names it as ``codec``. Parts that hold no row for
    each of its rows, as one layer for all, it names in ``shared``; else a store makes it whole. One that is to be
    compared in fewer columns than it has sets ``partial`` and writes ``facing``.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool
    shared: tuple[str, ...] = ()  # names of parts of `pack` that hold no row for each of its rows
    optional: tuple[str, ...] = ()  # names of parts that may be missing, which says the same as zeros
    partial: bool = False  # whether objectives compare it by `facing`, in other columns than its own
    parts: int = 1  # how many tensors of the size of its rows are alive while rows are made

    def __init__(self, shape: torch.Size, dtype: torch.dtype, device: torch.device, requires_grad: bool) -> None:
        self.shape, self.dtype, self.device, self.requires_grad = shape, dtype, device, requires_grad
        self._dense: Tensor | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        """Rows and columns."""
        return 2

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Rows ``start .. stop - 1``, ``[n, V]``; where ``out`` is given into that, of this dtype, without gradient."""
        raise NotImplementedError(f"{type(self).__name__} must make rows")

    def dense(self) -> Tensor:
        """All rows, made once: several readers share them, and their gradients pass through one product."""
        made = self._dense
        if made is None or (self.requires_grad and torch.is_grad_enabled() and not made.requires_grad):
            made = self._dense = self._all()
        return made

    def _all(self) -> Tensor:
        return self.rows(0, len(self))

    def take(self, index: Tensor) -> Lazy:
        """The rows at ``index`` (int64)."""
        return self.of(*(part[index] for part in self.leaves()))

    def leaves(self) -> tuple[Tensor, ...]:
        """The tensors that hold a row for each of its rows."""
        raise NotImplementedError(f"{type(self).__name__} must name its tensors")

    def of(self, *rows: Tensor) -> Lazy:
        """The same with other rows of the tensors of :meth:`leaves`."""
        raise NotImplementedError(f"{type(self).__name__} must take other tensors")

    def joined(self, others: Sequence[Lazy]) -> Lazy:
        """Its rows and those of others of its kind, one after the other."""
        return self.of(*(torch.cat(parts) for parts in zip(*map(leaves, (self, *others)), strict=True)))

    def pack(self) -> dict[str, Tensor] | None:
        """The tensors that it crosses between hosts as, and is kept as, by name; None: it is made whole.

        Nobody may change them afterwards: what belongs to a model is copied. See :mod:`kdmesh.signals.codecs`.
        """
        return None

    def keep(self) -> dict[str, Tensor] | None:
        """The tensors that it is kept as in a store, where what all rows share (``shared``) stands once for all."""
        return self.pack()

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> Lazy:
        """The same of such tensors."""
        raise NotImplementedError(f"{cls.__name__} must be made of what it is packed as")

    def facing(self, student: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Both sides as they are compared, of rows ``start .. stop - 1``: logits ``[n, V]`` of a student, and its own.

        Each ``[n, c]``, logits of the same outcomes; gradients pass to the student's.
        """
        return student, self.rows(start, stop)

    def narrow(self, vocabulary: int) -> Lazy:
        """The first so many columns."""
        raise NotImplementedError(f"{type(self).__name__} must narrow its columns")

    def detach(self) -> Lazy:
        """The same, through which no gradient passes."""
        raise NotImplementedError(f"{type(self).__name__} must detach what it is made of")

    def frozen_copy(self) -> Lazy:
        """The same, detached, of nothing that its model's update changes: what others read later in the step."""
        return self.detach()

    def to(self, device: torch.device | str) -> Lazy:
        """The same on a device."""
        raise NotImplementedError(f"{type(self).__name__} must move what it is made of")


class FactoredLogits(Lazy):
    """``hidden [N, D] @ weight [V, D].T + bias [V]``, all of one dtype and on one device.

    ``whole``: the weight and bias that these are the first rows of, where a gradient is to reach those.
    """

    shared = ("weight", "bias")

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        whole: tuple[Tensor, Tensor | None] | None = None,
    ) -> None:
        self.hidden, self.weight, self.bias = hidden, weight, bias
        self.whole = whole or (weight, bias)
        taught = any(part is not None and part.requires_grad for part in (hidden, *self.whole))
        super().__init__(torch.Size((len(hidden), len(weight))), hidden.dtype, hidden.device, taught)

    def __reduce__(self) -> tuple[type[FactoredLogits], tuple[Tensor | None, ...]]:
        return FactoredLogits, (self.hidden, self.weight, self.bias)

    @property
    def compact(self) -> bool:
        """Whether hidden rows and the layer cross between hosts, rather than logits."""
        return crosses_hidden(len(self.hidden), self.hidden.shape[1], len(self.weight))

    def pack(self) -> dict[str, Tensor] | None:
        """Hidden rows and the layer, where these are less than logits."""
        return _layer(self.frozen_copy()) if self.compact else None

    def keep(self) -> dict[str, Tensor]:
        """Hidden rows and the layer, however many rows there are."""
        return _layer(self.detach())

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> FactoredLogits:
        """Of hidden rows and the layer."""
        return cls(parts["hidden"], parts["weight"], parts.get("bias"))

    def frozen_copy(self) -> FactoredLogits:
        """The same, detached, with a layer of its own: the model's may be updated before these rows are made."""
        plain = self.detach()
        bias = None if plain.bias is None else plain.bias.clone()
        return FactoredLogits(plain.hidden, plain.weight.clone(), bias)

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Rows of the product, as ``F.linear`` makes them."""
        hidden = self.hidden[start:stop]
        if out is None:
            return F.linear(hidden, self.weight, self.bias)
        with torch.no_grad():
            if self.bias is None:
                return torch.mm(hidden, self.weight.t(), out=out)
            return torch.addmm(self.bias, hidden, self.weight.t(), out=out)

    def leaves(self) -> tuple[Tensor, ...]:
        """The hidden rows."""
        return (self.hidden,)

    def of(self, *rows: Tensor) -> FactoredLogits:
        """Other hidden rows; the layer is shared."""
        (hidden,) = rows
        return FactoredLogits(hidden, self.weight, self.bias, self.whole)

    def narrow(self, vocabulary: int) -> FactoredLogits:
        """The first so many columns: a view of the layer."""
        bias = None if self.bias is None else self.bias[:vocabulary]
        return FactoredLogits(self.hidden, self.weight[:vocabulary], bias, self.whole)

    def detach(self) -> FactoredLogits:
        """The same, through which no gradient passes."""
        bias = None if self.bias is None else self.bias.detach()
        plain = FactoredLogits(self.hidden.detach(), self.weight.detach(), bias)
        plain._dense = None if self._dense is None else self._dense.detach()
        return plain

    def to(self, device: torch.device | str) -> FactoredLogits:
        """The same on a device."""
        if torch.device(device) == self.device:
            return self
        bias = None if self.bias is None else self.bias.to(device)
        return FactoredLogits(self.hidden.to(device), self.weight.to(device), bias)


def _layer(plain: FactoredLogits) -> dict[str, Tensor]:
    parts = {"hidden": plain.hidden, "weight": plain.weight}
    return parts if plain.bias is None else {**parts, "bias": plain.bias}


class MixedLogits(Lazy):
    """Several sources combined row by row: a consensus over teachers that is never formed as a whole.

    ``make(chunks, where)`` gets the sources' rows, ``[n, V]`` each, and which rows of the sources these are: a slice or
    an int64 index (either selects from a tensor of per-row weights). It returns ``[n, V]`` and leaves the chunks alone.
    """

    def __init__(
        self,
        sources: Sequence[Tensor | Lazy],
        make: Callable[[list[Tensor], slice | Tensor], Tensor],
        index: Tensor | None = None,
    ) -> None:
        self.sources, self.make, self.index = list(sources), make, index
        first = self.sources[0]
        if any(source.shape != first.shape for source in self.sources):
            shapes = ", ".join(str(list(source.shape)) for source in self.sources)
            raise ValueError(f"sources of one consensus differ in shape: {shapes}")
        taught = any(source.requires_grad for source in self.sources)
        dtype = reduce(torch.promote_types, (source.dtype for source in self.sources))
        super().__init__(torch.Size(first.shape), dtype, first.device, taught)
        lazies = [n for n, source in enumerate(self.sources) if isinstance(source, Lazy)]
        self._host = next(
            (n for n in lazies if self.sources[n].dtype == dtype), None
        )  # its rows give way to the result
        parts = sum(source.parts for source in self.sources if isinstance(source, Lazy))
        self.parts = parts + (self._host is None)
        self._buffers: dict[int, Tensor] = {}

    def where(self, start: int, stop: int) -> slice | Tensor:
        """Which rows of the original sources stand at ``start .. stop - 1``."""
        return slice(start, stop) if self.index is None else self.index[start:stop]

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Combine rows, a few at a time where they go into ``out``, so that what ``make`` makes stays small."""
        if out is None:
            chunks = [
                value[start:stop] if isinstance(value, Tensor) else value.rows(start, stop) for value in self.sources
            ]
            return self.make(chunks, self.where(start, stop))
        with torch.no_grad():
            chunks = [self._chunk(number, start, stop, out) for number in range(len(self.sources))]
            for a, b in blocks(stop - start, self.shape[1], self.device):
                out[a:b] = self.make([chunk[a:b] for chunk in chunks], self.where(start + a, start + b))
        return out

    def _chunk(self, number: int, start: int, stop: int, out: Tensor) -> Tensor:
        """A source's rows, in memory that its next rows go into again."""
        source = self.sources[number]
        if isinstance(source, Tensor):
            return source[start:stop]
        if number == self._host:
            return source.rows(start, stop, out)
        buffer = self._buffers.get(number)
        if buffer is None or len(buffer) < stop - start:
            shape = (stop - start, source.shape[1])
            buffer = self._buffers[number] = torch.empty(shape, dtype=source.dtype, device=source.device)
        return source.rows(start, stop, buffer[: stop - start])

    def _all(self) -> Tensor:
        return self.make([dense(source) for source in self.sources], self.where(0, len(self)))

    def take(self, index: Tensor) -> MixedLogits:
        """The rows at ``index`` of every source."""
        known = index if self.index is None else self.index[index]
        return MixedLogits(
            [taken(value, index) for value in self.sources],
            self.make,
            known,
        )

    def narrow(self, vocabulary: int) -> MixedLogits:
        """The first so many columns of every source, before they are combined."""
        return MixedLogits([narrowed(value, vocabulary) for value in self.sources], self.make, self.index)

    def detach(self) -> MixedLogits:
        """The same of detached sources."""
        return MixedLogits([source.detach() for source in self.sources], self.make, self.index)

    def to(self, device: torch.device | str) -> MixedLogits:
        """The same of sources on a device; whatever ``make`` holds must be there already."""
        index = None if self.index is None else self.index.to(device)
        return MixedLogits([source.to(device) for source in self.sources], self.make, index)


def faced(student: Tensor | Lazy, target: Tensor | Lazy) -> tuple[Tensor | Lazy, Tensor | Lazy]:
    """Both sides as an objective compares them: made, in the columns of a target that is ``partial``; else as given."""
    if not (isinstance(target, Lazy) and target.partial):
        return student, target
    if student.shape != target.shape:
        raise ValueError(f"student {list(student.shape)} and target {list(target.shape)} differ in shape")
    return target.facing(dense(student), 0, len(target))


def dense(value: Tensor | Lazy) -> Tensor:
    """A tensor, whatever it was."""
    return value.dense() if isinstance(value, Lazy) else value


def taken(value: Tensor | Lazy, index: Tensor) -> Tensor | Lazy:
    """The rows at ``index`` (int64)."""
    return value.take(index) if isinstance(value, Lazy) else value[index]


def leaves(value: Tensor | Lazy) -> tuple[Tensor, ...]:
    """The tensors that hold a value's rows."""
    return value.leaves() if isinstance(value, Lazy) else (value,)


def rebuild(value: Tensor | Lazy, rows: Sequence[Tensor]) -> Tensor | Lazy:
    """A value of other rows of such tensors."""
    return value.of(*rows) if isinstance(value, Lazy) else rows[0]


def joined(values: Sequence[Tensor | Lazy]) -> Tensor | Lazy:
    """The rows of several values of one kind, one after the other."""
    first, *others = values
    if isinstance(first, Lazy):
        return first.joined([value for value in others if isinstance(value, Lazy)])
    return torch.cat([value for value in values if isinstance(value, Tensor)])


def narrowed(value: Tensor | Lazy, columns: int) -> Tensor | Lazy:
    """The first so many columns."""
    if value.shape[-1] == columns:
        return value
    return value.narrow(columns) if isinstance(value, Lazy) else value[..., :columns]


def blocks(rows: int, columns: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Cut rows into blocks that fit into the caches; on a GPU into one, since each operation costs a launch."""
    size = rows if device.type != "cpu" else max(1, BLOCK // max(columns, 1)) * torch.get_num_threads()
    return ((start, min(start + size, rows)) for start in range(0, rows, max(size, 1)))
