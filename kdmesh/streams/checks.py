"""Checks that every source of data passes: finite float32 features, and labels of one of three kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError

MANY_CLASSES = 1000  # above this, labels that outnumber the samples are taken for ids


def as_tensor(values: Any, name: str, where: str) -> Tensor:
    """Return ``values`` as a tensor on the CPU, without its graph; ``name`` says whose they are in an error."""
    try:
        return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise MeshError(f"{name}: not an array of numbers ({error})", where=where) from None


def features(x: Tensor, name: str, where: str) -> Tensor:
    """Return ``x [N, ...]`` as float32, values unchanged; refuse empty data and values that are not finite."""
    samples(x.shape, x.dtype, name, where)
    return finite(x.float(), name, where).contiguous()


def samples(shape: torch.Size, dtype: torch.dtype | str, name: str, where: str) -> None:
    """Refuse a shape of no samples ``[N, ...]``, and numbers that are not real."""
    if len(shape) < 2 or 0 in shape or "complex" in str(dtype):
        raise MeshError(
            f"{name}: shape {list(shape)} of {dtype} where features were expected",
            where=where,
            instead="at least one row of real numbers: [N, features] or [N, channels, height, width]",
        )


def finite(x: Tensor, name: str, where: str, rows: Tensor | None = None) -> Tensor:
    """Return float32 ``x [N, ...]``; refuse values that are not finite. ``rows``: what its rows are numbered."""
    if not torch.isfinite(x.sum()) and not (good := torch.isfinite(x).flatten(1).all(1)).all():
        row = int((~good).nonzero()[0])
        row = row if rows is None else int(rows[row])
        raise MeshError(f"{name}, row {row}: a value is not finite in float32", where=where, instead="finite numbers")
    return x


def targets(y: Tensor, rows: int, classes: int | None, name: str, where: str) -> tuple[Tensor, int]:
    """Return labels of any kind as a table has them, and the number of classes, 0 where they are none.

    ``[N]``: classes, see :func:`labels`. ``[N, T]`` of floating point: T values, as float32. ``[N, K]`` of whole
    numbers or bool: K indicators, 0 or 1, as int64.
    """
    if y.dim() != 2 or y.is_complex():
        return labels(y, rows, classes, name, where)
    kind = "values" if y.is_floating_point() else "indicators"
    if not y.shape[1]:
        raise MeshError(f"{name}: labels of shape {list(y.shape)}", where=where, instead="at least one column")
    if len(y) != rows:
        raise MeshError(f"{name}: {len(y)} labels for {rows} rows", where=where, instead="one row of labels per row")
    if classes:
        raise MeshError(
            f"{name}: {kind} of shape {list(y.shape)}, and {classes} classes",
            where=where,
            instead=f"no `classes`, or one whole number per row: [N], not {list(y.shape)}",
        )
    if kind == "values":
        y = y.float()
        bad, what, instead = ~y.isfinite(), "is not finite in float32", "finite numbers"
    else:
        bad, what = (y != 0) & (y != 1), "is neither 0 nor 1"
        instead = (
            "indicators 0 and 1; for values, numbers of floating point; for classes, one whole number per row: [N]"
        )
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        what = f"{name}, row {row}: label {column} is {y[row, column].item():g}, which {what}"
        raise MeshError(what, where=where, instead=instead)
    return (y if kind == "values" else y.to(torch.int64)).contiguous(), 0


def labels(
    y: Tensor, rows: int, classes: int | None, name: str, where: str, at: Callable[[int], str] = "row {}".format
) -> tuple[Tensor, int]:
    """Return ``y [N]`` as int64 and the number of classes: as given, else the largest label + 1.

    ``name`` says whose labels they are and ``at`` where a row stands.

    Refused, with the row: another number of labels than ``rows``, fractions, negative labels, labels beyond
    ``classes``; and, where ``classes`` is not given, so many classes that the labels must be ids.
    """
    if y.dim() != 1 or y.is_complex():
        raise MeshError(
            f"{name}: labels of shape {list(y.shape)}",
            where=where,
            instead="classes [N], values [N, T] or indicators [N, K]",
        )
    if len(y) != rows:
        raise MeshError(f"{name}: {len(y)} labels for {rows} rows", where=where, instead="one label per row")
    whole = y.floor() if y.is_floating_point() else y
    top = float("inf") if classes is None else classes
    for bad, what in (
        (y != whole, "is no whole number"),
        (whole < 0, "is negative"),
        (whole >= top, f"is beyond the {classes} classes" if classes else "is not finite"),
    ):
        if bad.any():
            row = int(bad.nonzero()[0])
            raise MeshError(
                f"{name}, {at(row)}: label {y[row].item():g} {what}",
                where=where,
                instead="labels 0 .. classes - 1"
                + ("; values to learn have a second axis: [N, 1]" if y.is_floating_point() else ""),
            )
    y = y.to(torch.int64)
    found = int(y.max()) + 1
    if classes is None and found > max(rows, MANY_CLASSES):
        raise MeshError(
            f"{name}: label {found - 1} among {rows} rows looks like an id",
            where=where,
            instead=f"labels 0 .. C - 1, or say how many classes there are (classes: {found})",
        )
    return y, classes or found
