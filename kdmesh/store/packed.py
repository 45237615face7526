"""Sparse distributions in few bytes: columns in as many bits as they need, log-probabilities in a byte each.

What is kept of a row of k log-probabilities ``v_1 .. v_k``, n columns and the mass of all others: the columns in
``ceil(log2 V)`` bits each; a byte ``c`` a value, of which ``v = low (c / 254)**2``, where ``low`` is the row's least
(float32): steps are fine where the probability is large; and the others' mass as it is. Read back, the values are
shifted so that they and that mass add up to 1, as they did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.store import bits
from kdmesh.store.mapped import DTYPES, written_as

VALUES, INDEX, TAIL, COLUMNS = "values", "index", "tail", "columns"
CODES, LOW = (
    VALUES + ".codes",
    VALUES + ".low",
)  # names of what is kept; that of columns says how many, in how many bits
BITS = re.compile(r"index\.(\d{1,9})x(\d{1,2})bits")
STEPS, NOTHING = 254, 255  # between 0 and a row's least value; the code of -inf
WHOLE = 1e-3  # what the probabilities of a row may miss of 1


def encode(parts: Mapping[str, Tensor], columns: int | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The parts of a sparse distribution, and their types; ``columns``: V. MeshError for what is none."""
    if columns is None or not {VALUES, INDEX, TAIL} <= parts.keys():
        raise MeshError(
            "this signal names no columns, so there is nothing that `packed` could leave out",
            where="form", instead="int8, or a signal such as top_k or sampled",
        )  # fmt: skip
    values, index, tail = parts[VALUES], parts[INDEX], parts[TAIL]
    if index.numel() and int(index.max()) >= columns:
        raise MeshError(
            f"column {int(index.max())} is named, of a head with {columns} columns: its vocabulary changed",
            where="form", instead="the signal of the head that it was made of",
        )  # fmt: skip
    _refuse(values, tail)
    wide = bits.width(columns)
    codes, low = _codes(values)
    rest = {name: one for name, one in parts.items() if name not in (VALUES, INDEX)}
    name = f"{INDEX}.{index.shape[1]}x{wide}bits"
    kept = {**rest, CODES: codes, LOW: low, name: bits.pack(index, wide)}
    return kept, {VALUES: written_as(values.dtype), INDEX: written_as(index.dtype)}


def decode(kept: Mapping[str, Tensor], types: Mapping[str, str]) -> dict[str, Tensor]:
    """What :func:`encode` was given, but for its errors. KeyError and ValueError for what it did not give."""
    name = next(name for name in kept if BITS.fullmatch(name))
    count, wide = (int(one) for one in name.removeprefix(INDEX + ".").removesuffix("bits").split("x"))
    values = _values(kept[CODES], kept[LOW], kept[TAIL]).to(DTYPES[types[VALUES]])
    index = bits.unpack(kept[name], count, wide).to(DTYPES[types[INDEX]])
    rest = {part: one for part, one in kept.items() if part not in (CODES, LOW, name)}
    return {**rest, VALUES: values, INDEX: index}


def is_packed(kept: Mapping[str, Tensor]) -> bool:
    """Whether this is what :func:`encode` keeps."""
    return any(BITS.fullmatch(name) for name in kept)


def _refuse(values: Tensor, tail: Tensor) -> None:
    """MeshError for NaN, and for rows that are no distributions."""
    if bool(values.isnan().any()) or bool(tail.isnan().any()):
        raise MeshError("a distribution has NaN", where="form", instead="a teacher that gives numbers, or exact")
    off = (values.double().exp().sum(1) + tail.double().exp() - 1).abs()
    if off.numel() and not float(off.max()) <= WHOLE:
        raise MeshError(
            f"a row's probabilities and the mass of all others miss 1 by {float(off.max()):.3g}, so they are none",
            where="form", instead="exact",
        )  # fmt: skip


def _codes(values: Tensor) -> tuple[Tensor, Tensor]:
    possible = values.isfinite()
    at = torch.float64 if values.dtype is torch.float64 else torch.float32
    least = values.to(at).where(possible, 0.0)
    low = least.amin(1).clamp_max(0.0) if values.shape[1] else least.new_zeros(len(values))
    share = least.clamp_max(0.0) / low.where(low < 0, -1.0)[:, None]
    codes = (share.sqrt() * STEPS).round()
    return codes.where(possible, NOTHING).to(torch.uint8), low


def _values(codes: Tensor, low: Tensor, tail: Tensor) -> Tensor:
    back = low[:, None] * (codes.to(low.dtype) / STEPS).square()
    back = back.masked_fill(codes == NOTHING, float("-inf"))
    if not codes.shape[1]:
        return back
    mass = (-torch.expm1(tail.to(low.dtype).clamp_max(0.0))).log()  # of the values together
    shift = mass - back.logsumexp(1)
    return (back + shift.where(shift.isfinite(), 0.0)[:, None]).clamp_max(0.0)
