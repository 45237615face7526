"""The figures of a trained agent on a user's own labelled file: those that its run reported."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from kdmesh.errors import FAULTS, MeshError, nearest
from kdmesh.hosts.by_column import ByColumn
from kdmesh.hosts.metrics import UNDEFINED, measure
from kdmesh.inference.inputs import LEARNED, Inputs
from kdmesh.plugins import registry
from kdmesh.spec.base import MetricRef
from kdmesh.tables import rows as table

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kdmesh.contracts.metric import Metric
    from kdmesh.inference.trained import Trained


def evaluate(
    trained: Trained,
    inputs: Inputs,
    by: list[str] | None = None,
    label: str | None = None,
    told: Callable[[int], None] = lambda done: None,
    cut: list[int] | None = None,
) -> dict[str, Any]:
    """The metrics that the run reported, of this file's samples and labels, by name.

    ``by``: columns of the file by whose values the primary one of its task is given too. ``label``: the column of
    labels, where this file calls it otherwise than the one that was learned. ``cut``: as of ``Trained.scores``.
    MeshError for a file without labels.
    """
    truth = _truth(trained, inputs, label)
    scores = trained.scores(inputs.x, told, cut)
    columns = {name: _numbers(inputs, name) for name in by or ()}
    found, single = _metrics(trained, {name: values for name, (values, _) in columns.items()})
    numbers = {name: at for name, (_, at) in columns.items()}
    classes, total = trained.config.class_numbers, None
    if classes is not None:
        total = max(int(truth.max()) + 1, *(number + 1 for number in classes))

    def on_error(key: str, error: BaseException) -> None:
        registry().attribute_error("metrics", key, error, f"on {inputs.path}", "metrics")

    figures = measure(
        found, scores, truth, classes=classes, total=total, columns=numbers, on_error=on_error, single=single
    )
    left = _left_out(trained)
    return {**figures, UNDEFINED: {**left, **figures.get(UNDEFINED, {})}} if left else figures


def _left_out(trained: Trained) -> dict[str, str]:
    """The metrics of the run that are not measured of a file, and why."""
    found: dict[str, str] = {}
    for ref in map(MetricRef.model_validate, trained.config.metrics):
        if ref.by:
            found[ref.key] = f"of a file it is measured with --by {ref.by}"
        elif ref.of or {"texts", "pairs"} & {*registry().find("metrics", ref.name, "metrics").needs}:
            found[ref.key] = "it is of texts that are written, or of two answers"
    return found


def _truth(trained: Trained, inputs: Inputs, label: str | None) -> Tensor:
    """The labels of a file, as the agent's outputs count them."""
    if trained.offer.rows != "samples" or trained.offer.source != "table" or trained.offer.labels == "relevance":
        what = f"{trained.config.agent} learned {trained.config.task}, which has no label for each sample"
        raise MeshError(what, file=str(trained.root), where="task", instead="its run's figures, in summary.json")
    if inputs.rows is None and inputs.classes is not None and trained.offer.labels == "classes":
        return _of_folders(trained, inputs, inputs.classes, label)
    if inputs.rows is None and inputs.noun == "image":
        instead = "a folder for each class, or a table of paths with labels"
        raise MeshError(f"{inputs.path}: images in no folders of classes", where=inputs.where, instead=instead)
    if inputs.rows is None:
        raise MeshError(f"{inputs.path}: no columns", where=inputs.where, instead="a table with a column of labels")
    reads, rows = trained.config.reads, [inputs.rows]
    learned = next((reads[role] for role in LEARNED if role in reads), None)
    wanted = [learned] if isinstance(learned, str) else learned or []
    count = 1 if trained.offer.labels == "classes" else len(trained.names)
    if label is not None:
        if count > 1:
            what = f"{trained.config.agent} answers {count} columns, not one"
            raise MeshError(what, where="--label", instead=f"a file with {', '.join(wanted or trained.names)}")
        wanted = [label]
    elif learned is None:
        raise MeshError("its folder names no column of labels", where="--label", instead="--label COLUMN")
    if len(wanted) != count:
        what = f"its folder is damaged: {len(wanted)} columns for {count} outputs"
        raise MeshError(what, file=str(trained.root), where="reads", instead="a complete copy of it")
    table.has_columns(inputs.rows, *wanted)
    match trained.offer.labels:
        case "values":
            return table.values_of(rows, wanted)
        case "indicators":
            return table.indicators_of(rows, wanted)
    names = trained.names if trained.config.labels else None
    numbers = trained.config.class_numbers
    if numbers is not None:
        what = f"{trained.config.agent} knows {len(numbers)} of the classes that its run had"
        raise MeshError(what, file=str(trained.root), where="labels", instead="kdmesh predict, and your own figures")
    if names is None and not inputs.rows.is_numeric(wanted[0]):
        what = f"{inputs.path}, column {wanted[0]!r}: {inputs.rows.why_not(wanted[0])}"
        instead = f"the number of a class in every row, 0 to {trained.config.classes - 1}: it learned no names"
        raise MeshError(what, where=inputs.where, instead=instead)
    return table.labels_of(rows, wanted[0], trained.config.classes, names)[0]


def _of_folders(trained: Trained, inputs: Inputs, classes: list[str], label: str | None) -> Tensor:
    """The classes of images by the folders that they are in, as the agent's outputs count them."""
    if label is not None:
        raise MeshError(f"{inputs.path}: images without columns", where="--label", instead="without it")
    if trained.config.class_numbers is not None:
        what = f"{trained.config.agent} knows {len(trained.names)} of the classes that its run had"
        raise MeshError(what, file=str(trained.root), where="labels", instead="kdmesh predict, and your own figures")
    number = {name: at for at, name in enumerate(trained.names)}
    for at, name in enumerate(classes):
        if name not in number:
            what = f"{inputs.path}: {inputs.places[at]}: its folder {name!r} is no class of {trained.config.agent}"
            raise MeshError(what, where=inputs.where, instead=nearest(name, trained.names, "classes"))
    return torch.tensor([number[name] for name in classes])


def _numbers(inputs: Inputs, column: str) -> tuple[list[str], Tensor]:
    """The values of a column, and which of them each row has, ``[N]`` int64."""
    if inputs.rows is None:
        raise MeshError(f"{inputs.path}: images without columns", where="--by", instead="a table of paths")
    table.has_columns(inputs.rows, column)
    cells = inputs.rows.texts(column)
    values = sorted({one for one in cells if one.strip()})
    place = {value: number for number, value in enumerate(values)}
    return values, torch.tensor([place.get(cell, -1) for cell in cells])


def _metrics(trained: Trained, values: dict[str, list[str]]) -> tuple[dict[str, Metric], set[str]]:
    """The metrics of the run that need labels alone, fresh, by name, and which of them are one number each."""
    found: dict[str, Metric] = {}
    single: set[str] = set()
    for named in trained.config.metrics or list(trained.offer.metrics):
        try:
            ref = MetricRef.model_validate(named)
        except ValidationError:
            what = f"its folder is damaged: {str(named)[:40]} names no metric"
            raise MeshError(what, file=str(trained.root), where="metrics", instead="a complete copy of it") from None
        offer = registry().find("metrics", ref.name, "metrics")
        if ref.by or ref.of or {"texts", "pairs", "characters"} & {*offer.needs}:
            continue
        make = partial(_made, ref.name, ref.settings)
        found[ref.key] = make()
        if offer.scalar:
            single.add(ref.key)
        if ref.name == trained.offer.primary:
            for column, known in values.items():
                found[f"{ref.name}_by_{column}"] = ByColumn(ref.name, column, known, make, offer.higher)
    return found, single


def _made(name: str, settings: dict[str, Any]) -> Metric:
    try:
        made: Metric = registry().find("metrics", name).make(settings)
        return made
    except FAULTS as error:
        registry().attribute_error("metrics", name, error, "to be made", "metrics")
