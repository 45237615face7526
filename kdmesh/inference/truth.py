"""What a user's own labelled file says is right, as an agent's answers count it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError, nearest
from kdmesh.inference.inputs import LEARNED
from kdmesh.streams.checks import targets
from kdmesh.streams.tokens import Encoded
from kdmesh.tables import rows as table
from kdmesh.tables.candidates import relevance_of

if TYPE_CHECKING:
    from kdmesh.inference.inputs import Inputs
    from kdmesh.inference.trained import Trained
    from kdmesh.streams.unread import Unread


@dataclass
class Truth:
    """Samples as an agent reads them, and the label of each row of its answers.

    ``counts``: of texts in which words or tokens are asked for, how many of these each has; ``characters``: about how
    many each of them is.
    """

    x: Tensor | Unread | Encoded
    y: Tensor
    counts: Tensor | None = None
    characters: Tensor | None = None

    def each(self, numbers: Tensor) -> Tensor:
        """What is said of each sample of the file, of each row."""
        return numbers if self.counts is None else torch.repeat_interleave(numbers, self.counts)


def truth_of(trained: Trained, inputs: Inputs, label: str | None, cut: list[int]) -> Truth:
    """The samples of a file with their labels. To ``cut``: see :meth:`Trained.tokens`.

    ``label``: the column of labels, where this file calls it otherwise than the one that was learned. MeshError for a
    file without labels.
    """
    y = None if trained.offer.rows == "units" else _labels(trained, inputs, label)
    if trained.writes and label is not None:
        what = f"the labels of {trained.config.agent} are the tokens of texts themselves"
        raise MeshError(what, where="--label", instead="--text COLUMN")
    if not isinstance(inputs.x, list):
        assert y is not None  # only texts have units
        return Truth(inputs.x, y)
    x = trained.tokens(inputs.x, cut)
    return Truth(x, x.targets, x.counts, x.characters) if y is None else Truth(x, y)


def _labels(trained: Trained, inputs: Inputs, label: str | None) -> Tensor:
    """The labels of a file's samples."""
    if inputs.labels is not None:
        return _of_array(trained, inputs, label)
    if inputs.lists is not None:
        return _relevance(trained, inputs)
    if inputs.rows is None and inputs.classes is not None and trained.offer.labels == "classes":
        return _of_folders(trained, inputs, inputs.classes, label)
    if inputs.rows is None and inputs.noun == "image":
        instead = "a folder for each class, or a table of paths with labels"
        raise MeshError(f"{inputs.path}: images in no folders of classes", where=inputs.where, instead=instead)
    if inputs.rows is None:
        instead = "a table with a column of labels" if trained.is_text else "--labels FILE (.npy or IDX), or a table"
        raise MeshError(f"{inputs.path}: no columns", where=inputs.where, instead=instead)
    reads, rows = trained.config.reads, [inputs.rows]
    learned = next((reads[role] for role in LEARNED if role in reads), None)
    wanted = [learned] if isinstance(learned, str) else learned or []
    count = 1 if trained.offer.labels == "classes" else len(trained.names)
    if label is not None:
        if count > 1:
            what = f"{trained.config.agent} answers {count} columns, not one"
            raise MeshError(what, where="--label", instead=f"a file with {', '.join(wanted or trained.names)}")
        wanted = [label]
    elif learned is None:  # of folders of classes, or of arrays
        if "label" not in inputs.rows.columns or count > 1:
            raise MeshError("its folder names no column of labels", where="--label", instead="--label COLUMN")
        wanted = ["label"]
    if len(wanted) != count:
        what = f"its folder is damaged: {len(wanted)} columns for {count} outputs"
        raise MeshError(what, file=str(trained.root), where="reads", instead="a complete copy of it")
    if count == 1 and label is None and wanted[0] not in inputs.rows.columns:
        what = f"{inputs.path}: no column {wanted[0]!r}, the labels that {trained.config.agent} learned"
        instead = f"--label COLUMN, if it is called otherwise; {nearest(wanted[0], inputs.rows.columns, 'columns')}"
        raise MeshError(what, where=inputs.where, instead=instead)
    table.has_columns(inputs.rows, *wanted)
    match trained.offer.labels:
        case "values":
            return table.values_of(rows, wanted)
        case "indicators":
            return table.indicators_of(rows, wanted)
    names = trained.names if trained.config.labels else None
    _all_classes(trained)
    if names is None and not inputs.rows.is_numeric(wanted[0]):
        what = f"{inputs.path}, column {wanted[0]!r}: {inputs.rows.why_not(wanted[0])}"
        instead = f"the number of a class in every row, 0 to {trained.config.classes - 1}: it learned no names"
        raise MeshError(what, where=inputs.where, instead=instead)
    return table.labels_of(rows, wanted[0], trained.config.classes, names)[0]


def _all_classes(trained: Trained) -> None:
    """Refuse an agent that knows some of its run's classes: of the others its folder says nothing."""
    if trained.config.class_numbers is not None:
        what = f"{trained.config.agent} knows {len(trained.names)} of the classes that its run had"
        raise MeshError(what, file=str(trained.root), where="labels", instead="kdmesh predict, and your own figures")


def _of_array(trained: Trained, inputs: Inputs, label: str | None) -> Tensor:
    """Labels that stand in an array beside that of the samples."""
    if label is not None:
        raise MeshError(f"{inputs.path}: arrays without columns", where="--label", instead="--labels FILE")
    assert inputs.labels is not None
    y, name = inputs.labels
    kind, where = trained.offer.labels, "--labels"
    if kind == "classes":
        _all_classes(trained)
        return targets(y, len(inputs), trained.config.classes, name, where)[0]
    width = inputs.x.shape[1] - 1 if kind == "relevance" and isinstance(inputs.x, Tensor) else len(trained.names)
    if y.dim() != 2 or y.shape[1] != width or (kind != "indicators" and not y.is_floating_point()):
        want = "of whole numbers or bool" if kind == "indicators" else "of floating point"
        what = f"{name}: shape {list(y.shape)} of {str(y.dtype).removeprefix('torch.')}"
        raise MeshError(what, where=where, instead=f"an array [{len(inputs)}, {width}] {want}")
    return targets(y, len(inputs), None, name, where)[0]


def _relevance(trained: Trained, inputs: Inputs) -> Tensor:
    """How relevant the candidates of each query are, ``[N, L]``, as wide as those of the run's data at least."""
    assert inputs.lists is not None and inputs.rows is not None
    y = relevance_of(inputs.lists, inputs.rows)
    missing = trained.config.classes - y.shape[1]
    return torch.cat([y, y.new_full((len(y), missing), -1.0)], 1) if missing > 0 else y


def _of_folders(trained: Trained, inputs: Inputs, classes: list[str], label: str | None) -> Tensor:
    """The classes of images by the folders that they are in, as the agent's outputs count them."""
    if label is not None:
        raise MeshError(f"{inputs.path}: images without columns", where="--label", instead="without it")
    _all_classes(trained)
    number = {name: at for at, name in enumerate(trained.names)}
    for at, name in enumerate(classes):
        if name not in number:
            what = f"{inputs.path}: {inputs.places[at]}: its folder {name!r} is no class of {trained.config.agent}"
            raise MeshError(what, where=inputs.where, instead=nearest(name, trained.names, "classes"))
    return torch.tensor([number[name] for name in classes])


def values_of(inputs: Inputs, column: str) -> tuple[list[str], Tensor]:
    """The values of a column, and which of them each sample has, ``[N]`` int64."""
    if inputs.rows is None:
        what = f"{inputs.path}: {'images' if inputs.noun == 'image' else 'samples'} without columns"
        raise MeshError(what, where="--by", instead="a table of paths" if inputs.noun == "image" else "a table")
    table.has_columns(inputs.rows, column)
    cells = inputs.rows.texts(column)
    found = sorted({one for one in cells if one.strip()})
    place = {value: number for number, value in enumerate(found)}
    return found, torch.tensor([place.get(cell, -1) for cell in cells])


def kept_of(inputs: Inputs, taken: set[str]) -> dict[str, list[str]]:
    """The other columns of a file, as text."""
    rows: Any = inputs.rows
    if rows is None:
        return {}
    return {name: [str(table.cell(one[name])) for one in rows.cells] for name in rows.columns if name not in taken}
