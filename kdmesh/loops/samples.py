"""The samples of anyone's data set, as the store knows them: by a digest of what a model is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.streams.checks import as_tensor
from kdmesh.streams.contents import digests
from kdmesh.streams.tokens import Encoded, Row
from kdmesh.text.heads import CAUSAL, LISTS, head_of

if TYPE_CHECKING:
    from collections.abc import Sequence

WHERE = "targets"
IGNORED = -100  # what transformers writes for a label that has no loss
FIELDS = ("pixel_values", "x")  # where items by name have numbers, unless `sample` says
HERE = "sample=, a function that gives of an item what the producers were given"


@dataclass(frozen=True)
class Kind:
    """Of what kind the samples of an entry are.

    Attributes:
        dtype: of numbers, as ``torch.float32``; "" for texts.
        shape: of a sample of numbers.
        task: for which texts were read.
        numbers: of texts, the sha256 of which number stands for which token.
    """

    dtype: str = ""
    shape: tuple[int, ...] = ()
    task: str = ""
    numbers: str = ""

    @classmethod
    def of(cls, told: object) -> Kind:
        """Of the part ``input`` of an entry's key. MeshError for what says neither."""
        match told:
            case {"dtype": str(dtype), "shape": [*shape]}:
                return cls(dtype, tuple(map(int, shape)))
            case {"task": str(task), "numbers": str(numbers)}:
                if head_of(task) in LISTS:
                    what = f"its samples are lists, of the task {task}, which no token ids alone are"
                    raise MeshError(what, where=WHERE, instead="a mesh, which reads lists")
                return cls(task=task, numbers=numbers)
        raise MeshError("its key does not say of what samples it is", where=WHERE, instead="an entry of this version")

    @property
    def text(self) -> bool:
        """Whether samples are texts."""
        return not self.dtype

    def __str__(self) -> str:
        if self.text:
            return f"texts for the task {self.task}"
        return f"samples {self.dtype.removeprefix('torch.')} {list(self.shape)}"


class Samples:
    """What producers are given of the items of a data set.

    ``sample``: a function that gives it of an item; None: of items by name the token ids (with labels and mask) or
    numbers, of others the first part.
    """

    def __init__(self, kind: Kind, sample: Any = None) -> None:
        self.kind, self._sample = kind, sample

    def digests(self, items: Sequence[Any], at: Sequence[int]) -> tuple[Tensor, list[Row] | None]:
        """The digests ``[n, 16]`` of items, and, of texts, their tokens and which of them are asked for an answer.

        ``at``: the items' numbers, for errors.
        """
        if not self.kind.text:
            return digests(self.numbers(items, at)), None
        rows = [self._row(item, number) for item, number in zip(items, at, strict=True)]
        return digests(Encoded.of(rows, 0)), rows

    @property
    def by_unit(self) -> bool:
        """Whether a sample has an answer for each of some of its tokens."""
        return self.kind.text and head_of(self.kind.task).per == "units"

    def numbers(self, items: Sequence[Any], at: Sequence[int]) -> Tensor:
        """The samples ``[n, ...]`` as a model is given them. MeshError for another shape."""
        dtype = getattr(torch, self.kind.dtype.removeprefix("torch."))
        made = [self._number(item, number) for item, number in zip(items, at, strict=True)]
        if len({one.dtype for one in made}) > 1:
            made = [one.to(dtype) for one in made]
        return torch.stack(made).to(dtype)

    def _number(self, item: Any, number: int) -> Tensor:
        """One sample. MeshError for another shape."""
        told = self._told(item, number)
        plain = isinstance(told, Tensor) and told.device.type == "cpu"
        value = told.detach() if plain else as_tensor(told, f"item {number}", WHERE)
        if tuple(value.shape) != self.kind.shape:
            what = f"item {number} is a sample of shape {list(value.shape)}, and the answers are to {self.kind}"
            raise MeshError(what, where=WHERE, instead=f"the data that were answered, or {HERE}")
        return value

    def _told(self, item: Any, number: int) -> Any:
        if self._sample is not None:
            return self._sample(item)
        if isinstance(item, Mapping):
            if self.kind.text:
                return item
            names = [name for name in FIELDS if name in item]
            if len(names) != 1:
                what = f"item {number} has {', '.join(map(str, item))}, and which of them a model is given is not clear"
                raise MeshError(what, where=WHERE, instead=HERE)
            return item[names[0]]
        return item[0] if isinstance(item, tuple | list) and not self.kind.text else item

    def _row(self, item: Any, number: int) -> Row:
        """A text's tokens without padding, and which of them are asked."""
        told = self._told(item, number)
        fields = told if isinstance(told, Mapping) else {"input_ids": told}
        if "input_ids" not in fields:
            what = f"item {number} has no token ids, and the answers are to {self.kind}"
            raise MeshError(what, where=WHERE, instead=f"items with `input_ids`, or {HERE}")
        ids = self._ids(fields["input_ids"], number, "input_ids")
        labels = self._ids(fields["labels"], number, "labels") if self.by_unit and "labels" in fields else None
        if (mask := fields.get("attention_mask")) is not None:
            kept = self._ids(mask, number, "attention_mask") != 0
            if len(kept) != len(ids):
                raise MeshError(f"item {number}: a mask of {len(kept)} for {len(ids)} tokens", where=WHERE)
            ids, labels = ids[kept], labels if labels is None or len(labels) != len(kept) else labels[kept]
        if labels is not None and len(labels) != len(ids):
            raise MeshError(f"item {number}: {len(labels)} labels for {len(ids)} tokens", where=WHERE)
        return Row(ids.tolist(), self._units(ids, labels, number))

    def _units(self, ids: Tensor, labels: Tensor | None, number: int) -> list[int]:
        """Which tokens are asked: those before a token that is learned, or those with a label."""
        if not self.by_unit:
            return []
        if head_of(self.kind.task) == CAUSAL:
            learned = torch.ones(len(ids), dtype=torch.bool) if labels is None else labels != IGNORED
            return learned[1:].nonzero()[:, 0].tolist()
        if labels is None:
            what = f"item {number} has no `labels`, by which the words are known that have a tag"
            raise MeshError(what, where=WHERE, instead=f"labels, {IGNORED} for tokens without a tag of their own")
        return (labels != IGNORED).nonzero()[:, 0].tolist()

    def _ids(self, told: Any, number: int, name: str) -> Tensor:
        value = as_tensor(told, f"{name} of item {number}", WHERE)
        if value.dim() != 1 or value.is_floating_point() or not len(value):
            what = f"{name} of item {number} are {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
            raise MeshError(what, where=WHERE, instead="whole numbers, one for each token of one text")
        return value.to(torch.int64)
