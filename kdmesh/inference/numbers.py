"""Numbers of a user's as an agent takes them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from kdmesh.errors import MeshError, text_of
from kdmesh.tables.files import read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

MAGIC = b"\x93NUMPY"  # how a .npy file begins


class Unfit(NamedTuple):
    """Why numbers are none that an agent takes, ``row``: first in which one, and what to give instead."""

    row: int
    what: str
    instead: str


def taken(x: Tensor, divided_by: float | None, gaps: bool = False) -> Tensor | Unfit:
    """Samples ``[N, ...]`` as float32, or where the run divided them, also as the whole numbers that they were.

    ``divided_by``: by what the run divided the source's values, None: by nothing. Such samples are taken as they were
    there, whole numbers of any type from 0 up to that, or as the run read them, from 0 to 1; which of the two is
    decided of all samples together. ``gaps``: NaN is one, which is filled in.
    """
    if x.dtype == torch.bool or divided_by is None:
        found = x.to(torch.float32)
        fits = found.isfinite() | (found.isnan() if gaps else torch.tensor(False))
        return _unlike(found, fits, "a number that is not finite in float32", "finite numbers") or found
    if not x.is_floating_point():
        x = x if x.dtype == torch.uint8 else x.to(torch.int64)  # torch compares no other unsigned ones
    else:
        wrong = _unlike(x, x.isfinite(), "a number that is not finite", "finite numbers")
        if wrong is not None:
            return wrong
        if not bool((x > 1).any() and torch.equal(x, x.round())):
            instead = f"values from 0 to 1, or whole numbers from 0 to {divided_by:g}"
            return _unlike(x, (x >= 0) & (x <= 1), "fractions beyond 0 to 1", instead) or x.to(torch.float32)
    instead = f"whole numbers from 0 to {divided_by:g}"
    wrong = _unlike(x, (x >= 0) & (x <= divided_by), f"a number beyond 0 to {divided_by:g}", instead)
    return wrong or (x.to(torch.int64) if x.is_floating_point() else x)


def _unlike(x: Tensor, fits: Tensor, what: str, instead: str) -> Unfit | None:
    """What is wrong with the first row of which not all numbers fit."""
    if bool(fits.all()):
        return None
    row = int((~fits.reshape(len(x), -1).all(1)).nonzero()[0])
    return Unfit(row, what, instead)


def native(array: Any) -> Any:
    """A numpy array of numbers in a type that torch knows: in this machine's order of bytes, no longer than 64 bits."""
    order = array.dtype.newbyteorder("=")
    return array.astype("float64" if array.dtype.kind == "f" and array.dtype.itemsize > 8 else order, copy=False)


def read_array(path: Path, where: str) -> Tensor:
    """The array of a .npy file, which may be packed; never its pickles."""
    import numpy as np

    data, instead = read_bytes(path, where), "an array of numbers that numpy.save wrote"
    if not data.startswith(MAGIC):
        raise MeshError(f"{path}: it does not begin as a .npy file does", where=where, instead=instead)
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # of numpy and of Python's own parser, which reads the header
        raise MeshError(f"{path}: {text_of(error)}", where=where, instead=instead) from None
    if array.dtype.kind not in "fiub":
        raise MeshError(f"{path}: an array of {array.dtype}", where=where, instead=instead)
    return torch.from_numpy(native(array))
