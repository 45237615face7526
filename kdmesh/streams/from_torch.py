"""The user's own torch data as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from kdmesh.errors import MeshError, nearest
from kdmesh.streams.checks import as_tensor, features, targets
from kdmesh.streams.host_memory import memory
from kdmesh.streams.table import Table, no_labels
from kdmesh.streams.texts import Sample, Texts, concatenate

if TYPE_CHECKING:
    from collections.abc import Sequence

WHERE = "data"
AGAIN = 16  # items that are read twice, to see whether they stay the same


def table_from(dataset: Dataset[Any] | tuple[Any, ...] | Table, classes: int | None = None) -> Table:
    """Return a table of a tensor pair ``(x, y)``, a `TensorDataset`, or any data set with length and index.

    A list of texts, or of texts with a label each, is what :func:`from_texts` makes of it.

    Items are ``x`` or ``(x, y)``; ``y`` is a class, T values or K indicators (see
    :func:`kdmesh.streams.checks.targets`). Another data set is read once, in order; some of its items are read again,
    and where they differ the table is marked as not deterministic, with a note. Values become float32 unscaled.
    ``classes`` is by default as many as the data set names in `classes`, else the largest label + 1, and must be given
    for unlabelled data. Streams without index are refused.
    """
    if isinstance(dataset, Table):
        return dataset if classes is None else _build(dataset.x, dataset.y, classes, dataset)
    if isinstance(dataset, list) and _are_texts(dataset):
        return from_texts(dataset, classes)
    if isinstance(dataset, tuple):
        return _build(*_pair(dataset), classes)
    if isinstance(dataset, TensorDataset):
        return _build(*_pair(dataset.tensors), classes)
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise MeshError(
            f"{type(dataset).__name__} cannot be read by index",
            where=WHERE,
            instead="a data set with __len__ and __getitem__, or tensors (x, y)",
        )
    if not len(dataset):
        raise MeshError(f"{type(dataset).__name__} is empty", where=WHERE)
    first = _item(dataset, 0)
    if (size := 4 * len(dataset) * first[0].numel()) > memory():
        what = f"{type(dataset).__name__} has {size:,} bytes of samples, which are read into memory, of {memory():,}"
        instead = "files that are read when a batch asks for them: images, or arrays of .npy"
        raise MeshError(what, where=WHERE, instead=instead)
    items = [first, *(_item(dataset, i) for i in range(1, len(dataset)))]
    again = {i: _item(dataset, i) for i in range(0, len(items), -(-len(items) // AGAIN))}
    x = _stack([item[0] for item in items], "x")
    y = None if items[0][1] is None else _stack([item[1] for item in items], "y")
    names = [] if y is None or y.dim() > 1 else class_names(dataset)
    if y is not None and names and int(y.max()) >= len(names):
        names = []  # they name something else
    table = _build(x, y, (len(names) or None) if classes is None else classes)
    table.labels = names if len(names) == table.classes else []
    table.deterministic = all(_same(items[i], item) for i, item in again.items())
    if not table.deterministic:
        table.notes.append(
            f"{type(dataset).__name__} gives other values each time (random transforms?): every item was read once and "
            "is the same in all epochs and on every host; augmentation that is drawn anew belongs in `view: {augment}`"
        )
    return table


def _are_texts(given: Any) -> bool:
    """Whether data are a list of texts, alone or with a label each; one whose first item is one is meant to be."""
    if not isinstance(given, list) or not given:
        return False
    first = given[0][0] if isinstance(given[0], tuple | list) and given[0] else given[0]
    return isinstance(first, str | Sample)


def from_texts(items: Sequence[Any], classes: int | None = None) -> Table:
    """Return texts ``[text, (text, label), ...]``: a label is the number of a class, its name, or None for none.

    A text is words, or a :class:`kdmesh.streams.texts.Sample`. Names are numbered in sorted order. Texts without a
    label among others are the official split `transfer`; where none has one, they are what a language model learns, or,
    with ``classes``, samples without labels.
    """
    samples, labels = [], list[Any]()
    for at, item in enumerate(items):
        text, label = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        if isinstance(text, str) and text.strip():
            text = Sample(text, at=f"text {at}")
        if not isinstance(text, Sample):
            what = f"text {at} is {text!r:.40}"
            raise MeshError(what, where=WHERE, instead="a text, or (text, label), in every item; none is empty")
        if not (label is None or isinstance(label, str | int | np.integer)) or isinstance(label, bool):
            what = f"the label of text {at} is {label!r:.40}"
            raise MeshError(what, where=WHERE, instead="a whole number from 0, the name of a class, or None for none")
        samples.append(text)
        labels.append(label)
    known = [at for at, label in enumerate(labels) if label is not None]
    if not known:
        return Table(Texts(samples), None, classes or 0, source="torch")
    if len({isinstance(labels[at], str) for at in known}) > 1:
        raise MeshError("labels are numbers and names", where=WHERE, instead="numbers of classes, or names")
    names = sorted({labels[at] for at in known}) if isinstance(labels[known[0]], str) else []
    if names and classes is not None and len(names) > classes:
        raise MeshError(f"{len(names)} names for {classes} classes", where=WHERE, instead=f"classes={len(names)}")
    numbers = [names.index(labels[at]) if names else int(labels[at]) for at in known]
    y, count = targets(torch.tensor(numbers), len(known), classes or len(names) or None, "labels", WHERE)
    rest = [at for at, label in enumerate(labels) if label is None]
    made = Texts([samples[at] for at in (*known, *rest)])
    ids = torch.arange(len(made))
    return Table(
        made,
        torch.cat([y, no_labels(y, len(rest))]),
        count,
        official={"train": ids[: len(known)], "transfer": ids[len(known) :]} if rest else {},
        labels=names if len(names) == count else [],
        source="torch",
        reads={"text": "text"},
    )


def pool_from(dataset: Any) -> Table:
    """Return samples without labels: of a tensor, or of what :func:`table_from` reads, whose labels are left out."""
    if isinstance(dataset, Table):
        return replace(dataset, y=None)
    if isinstance(dataset, TensorDataset):
        dataset = dataset.tensors
    if _are_texts(dataset):
        return replace(from_texts([one[0] if isinstance(one, tuple | list) else one for one in dataset], 1), y=None)
    if isinstance(dataset, Tensor | tuple):
        return table_from((dataset if isinstance(dataset, Tensor) else dataset[0],), 1)
    indexed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    return table_from(_Unlabelled(dataset) if indexed else dataset, 1)


class _Unlabelled(Dataset[Any]):
    """The samples of a data set without their labels."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> Any:
        item = self.of[index]
        return item[0] if isinstance(item, tuple | list) else item


def class_names(dataset: Any) -> list[str]:
    """The names of a data set's classes, where it has them as `classes` (as torchvision's), also below a `Subset`."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    good = isinstance(names, (list, tuple)) and len(set(map(str, names))) == len(names)
    return [str(name) for name in names] if good and names else []


def join(
    train: Table, validation: Table | None = None, test: Table | None = None, transfer: Table | None = None
) -> Table:
    """Concatenate tables into one that keeps them as its official splits; alone, ``train`` is returned as it is.

    Classes that have names in every table are joined by name, in the order of ``train``. Labels of ``transfer`` are not
    looked at.
    """
    if set(train.official) == {"train", "transfer"} and (validation, test, transfer) != (None, None, None):
        train, pool = (_rows_of(train, train.official[name]) for name in ("train", "transfer"))
        if transfer is not None:
            raise MeshError(
                f"{len(pool)} samples of train have no label", where="data.transfer", instead="one of the two"
            )
        transfer = pool
    if transfer is not None:
        empty = None if train.y is None else no_labels(train.y, len(transfer))
        transfer = replace(transfer, y=empty, labels=train.labels, classes=train.classes)
    parts = {"train": train, "validation": validation, "test": test, "transfer": transfer}
    tables = {name: part for name, part in parts.items() if part is not None}
    if len(tables) == 1:
        return train
    for name, part in tables.items():
        if part.official:
            raise MeshError(f"{name} has splits of its own ({', '.join(part.official)})", where=f"data.{name}")
        if part.shape != train.shape:
            raise MeshError(f"samples of {list(part.shape)}; train has {list(train.shape)}", where=f"data.{name}")
        if not _alike(part, train):
            raise MeshError("its labels are not those of train", where=f"data.{name}", instead="labels as in train")
        tables[name] = _renamed(part, train.labels, f"data.{name}")
    ends = torch.tensor([len(part) for part in tables.values()]).cumsum(0).tolist()
    official = {
        name: torch.arange(end - len(part), end) for (name, part), end in zip(tables.items(), ends, strict=True)
    }
    shared = [key for key in train.columns if all(key in part.columns for part in tables.values())]
    return replace(
        train,
        x=concatenate([part.x for part in tables.values()]),
        y=None if train.y is None else torch.cat([part.y for part in tables.values() if part.y is not None]),
        classes=max(part.classes for part in tables.values()),
        official=official,
        columns={key: [value for part in tables.values() for value in part.columns[key]] for key in shared},
        deterministic=all(part.deterministic for part in tables.values()),
        notes=list(dict.fromkeys(note for part in tables.values() for note in part.notes)),
    )


def _rows_of(table: Table, rows: Tensor) -> Table:
    """Some samples alone."""
    y = None if table.y is None else table.y[rows]
    columns = {name: [values[row] for row in rows.tolist()] for name, values in table.columns.items()}
    return replace(
        table, x=table.texts[rows] if table.is_text else table.numbers[rows], y=y, official={}, columns=columns
    )


def _alike(part: Table, train: Table) -> bool:
    """Whether labels are of one kind and number; names of values or indicators are the same, in one order."""
    if part.kind != train.kind or bool(part.labels) != bool(train.labels):
        return False
    if train.y is None or part.y is None or train.y.dim() == 1:
        return True
    return part.y.shape[1] == train.y.shape[1] and part.labels == train.labels


def _renamed(part: Table, names: list[str], where: str) -> Table:
    """The table with its classes numbered as in ``names``; a class that has samples and is not there is refused."""
    if part.labels == names or part.y is None:
        return part
    numbers = {name: number for number, name in enumerate(names)}
    unknown = [name for number, name in enumerate(part.labels) if name not in numbers and (part.y == number).any()]
    if unknown:
        raise MeshError(
            f"its class {unknown[0]!r} is none of train's", where=where, instead=nearest(unknown[0], names, "classes")
        )
    order = torch.tensor([numbers.get(name, -1) for name in part.labels])
    return replace(
        part,
        y=order[part.y],
        classes=len(names),
        labels=names,
        notes=[*part.notes, f"{where} has its classes in another order than train; they were joined by name"],
    )


def _build(x: Any, y: Any, classes: int | None, base: Table | None = None) -> Table:
    x = features(as_tensor(x, "x", WHERE), "x", WHERE)
    if y is None:
        if classes is None:
            raise MeshError(
                "data without labels",
                where=WHERE,
                instead="pairs, as data(train=(x, y)); or, for samples without labels, how many classes: classes=",
            )
        count = classes
    else:
        y, count = targets(as_tensor(y, "y", WHERE), len(x), classes, "y", WHERE)
    return replace(base, x=x, y=y, classes=count) if base else Table(x, y, count, source="torch")


def _pair(tensors: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(tensors) not in (1, 2):
        raise MeshError(f"{len(tensors)} tensors", where=WHERE, instead="x, or x and y")
    return tensors[0], tensors[1] if len(tensors) == 2 else None


def _item(dataset: Any, index: int) -> tuple[Tensor, Tensor | None]:
    """One sample as tensors: copies, so that a data set that reuses its buffers does not change them later."""
    try:
        item = dataset[index]
    except Exception as error:  # of whatever class: its own traceback stands above ours
        raise MeshError(
            f"{type(dataset).__name__} gives no item {index}: {type(error).__name__}: {error}",
            where=WHERE,
            instead="a data set whose items are 0 .. len - 1, or tensors (x, y)",
        ) from error
    x, y = _pair(tuple(item)) if isinstance(item, (tuple, list)) else (item, None)
    name = f"item {index} of {type(dataset).__name__}"
    return as_tensor(x, name, WHERE).clone(), None if y is None else as_tensor(y, f"the label of {name}", WHERE).clone()


def _stack(values: list[Tensor | None], what: str) -> Tensor:
    for i, value in enumerate(values):
        first, here = values[0], None if value is None else list(value.shape)
        if first is None or value is None or value.shape != first.shape:
            raise MeshError(
                f"item {i}: {what} has shape {here}, unlike item 0", where=WHERE, instead="one shape for all"
            )
    return torch.stack([value for value in values if value is not None])


def _same(one: tuple[Tensor, Tensor | None], two: tuple[Tensor, Tensor | None]) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one, two, strict=True)
    )
