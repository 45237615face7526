"""Items with targets as a batch: what the data set gives by anyone's collator, and the targets beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from kdmesh.errors import MeshError
from kdmesh.signals.lazy import Lazy, joined

TARGETS, UNITS, ROWS = "targets", "target_units", "target_rows"
MASK = "attention_mask"


class TargetsCollator:
    """Make a batch of items of :func:`kdmesh.targets`.

    Items by name (`Mapping`): ``base`` collates what the data set gave, and the batch gets ``targets``, ``[B, C]``, or
    by producer. Of texts with an answer for each of some tokens these are ``[N, V]``, one sample's after the other's,
    with ``target_rows [N]`` int64: which rows of the student's ``logits.flatten(0, 1)`` they are for. Of other items,
    tuples, the targets are the last part.

    ``base``: a function from a list of items to a batch; by default torch's own.
    """

    def __init__(self, base: Callable[[list[Any]], Any] | None = None) -> None:
        if base is not None and not callable(base):
            what = f"found {type(base).__name__}"
            raise MeshError(what, where="TargetsCollator", instead="a function from a list of items to a batch")
        self.base = default_collate if base is None else base

    def __call__(self, items: list[Any]) -> Any:
        """The batch."""
        if not isinstance(items[0], Mapping):
            batch = self.base([item[0] if len(item) == 2 else tuple(item[:-1]) for item in items])
            whole = batch if isinstance(batch, list | tuple) and len(items[0]) > 2 else [batch]
            return [*whole, _together([item[-1] for item in items], flat=False)]
        if TARGETS not in items[0]:
            raise MeshError("items have no targets", where="TargetsCollator",
                            instead="those of kdmesh.targets; a Trainer drops them but for "
                            "TrainingArguments(remove_unused_columns=False)")  # fmt: skip
        own = [{name: value for name, value in item.items() if name not in (TARGETS, UNITS)} for item in items]
        batch = self.base(own)
        flat = UNITS in items[0]
        batch[TARGETS] = _together([item[TARGETS] for item in items], flat)
        if flat:
            batch[ROWS] = _rows([item[UNITS] for item in items], batch)
        return batch


def _together(values: list[Any], flat: bool) -> Any:
    """Targets as one; ``flat``: each has several rows."""
    if isinstance(values[0], dict):
        return {name: _together([value[name] for value in values], flat) for name in values[0]}
    return joined(values) if flat or isinstance(values[0], Lazy) else torch.stack(values)


def _rows(units: list[Tensor], batch: Any) -> Tensor:
    """Which rows of all tokens' answers, in the batch's padded shape, samples' units are."""
    if MASK not in batch:
        what = f"the batch has no `{MASK}`, by which padding is told from tokens"
        raise MeshError(what, where="TargetsCollator", instead="a base that pads and says where")
    mask = torch.as_tensor(batch[MASK]) != 0
    places = []
    for row, (own, real) in enumerate(zip(units, mask, strict=True)):
        columns = real.nonzero()[:, 0]
        if len(own) and int(own.max()) >= len(columns):
            what = f"a text of {len(columns)} tokens in the batch, and an answer for token {int(own.max())}"
            raise MeshError(what, where="TargetsCollator", instead="a base that pads, and cuts nothing")
        places.append(row * mask.shape[1] + columns[own])
    return torch.cat(places)
