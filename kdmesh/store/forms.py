"""In which numbers values are kept: as they were computed, or in fewer bytes with an error that is stated."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.store import packed
from kdmesh.store.mapped import DTYPES, written_as

EXACT, INT8, PACKED = "exact", "int8", "packed"
FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DENSE = (EXACT, *FLOATS, INT8)
FORMS = (*DENSE, PACKED)
"""``exact`` keeps the bits. ``int8`` keeps a byte a value, with a scale and a middle for each row. ``packed`` is for
signals that name columns, as top-k logits, alone: see :mod:`kdmesh.store.packed`."""
SCALE, MIDDLE = ".scale", ".middle"  # how the names of a row's two numbers end
STEPS = 254  # between the least and the largest value of a row


def encode(
    values: Mapping[str, Tensor], form: str, columns: int | None = None
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, float]]:
    """Tensors in a form; the types of those that were changed, by name; and the largest errors, by name.

    ``columns``: of a signal that names some columns, how many there are.

    Whole numbers stay as they are, and with ``int8`` also tensors with one number a row, as the mass of a tail. An
    error is the largest difference of a value and what :func:`decode` gives for it. MeshError for a form that is none,
    and for values that it cannot hold: in ``float16`` large ones, in ``int8`` such as are not finite.
    """
    if form not in FORMS:
        raise MeshError(f"{form!r} is no form of values", where="form", instead=", ".join(FORMS))
    if form == PACKED:
        kept, types = packed.encode(values, columns)
        found = packed.decode(kept, types)[packed.VALUES]
        return kept, types, {packed.VALUES: _largest(values[packed.VALUES], found)}
    kept, types, errors = dict(values), {}, {}
    for name, one in values.items():
        to = FLOATS.get(form, one.dtype)
        if not one.is_floating_point() or (to is one.dtype and form != INT8) or (form == INT8 and one.dim() < 2):
            continue
        types[name] = written_as(one.dtype)
        kept |= _bytes(name, one) if form == INT8 else {name: _rounded(name, one, to)}
        back = decode({part: kept[part] for part in (name, name + SCALE, name + MIDDLE) if part in kept}, types)[name]
        errors[name] = _largest(one, back)
    return kept, types, errors


def decode(kept: Mapping[str, Tensor], types: Mapping[str, str]) -> dict[str, Tensor]:
    """What :func:`encode` was given, but for its errors; ``types``: those that it told."""
    if packed.is_packed(kept):
        return packed.decode(kept, types)
    values = {name: one for name, one in kept.items() if not name.endswith((SCALE, MIDDLE))}
    for name, type_of in types.items():
        if name not in values:
            continue
        one, dtype = values[name], DTYPES[type_of]
        if name + SCALE in kept:
            column = (len(one), *[1] * (one.dim() - 1))
            scale, middle = (kept[name + end].view(column) for end in (SCALE, MIDDLE))
            one = one.to(scale.dtype) * scale + middle
        values[name] = one.to(dtype)
    return values


def _rounded(name: str, one: Tensor, to: torch.dtype) -> Tensor:
    rounded = one.to(to)
    if bool((rounded.isinf() & one.isfinite()).any()):
        raise MeshError(
            f"{name} has values up to {float(one[one.isfinite()].abs().max()):g}, which {to} cannot hold".replace(
                "torch.", ""
            ),
            where="form",
            instead="bfloat16, or exact",
        )
    return rounded


def _bytes(name: str, one: Tensor) -> dict[str, Tensor]:
    """A byte a value: each row's least is -127, its largest 127."""
    if not bool(one.isfinite().all()):
        raise MeshError(
            f"{name} has values that are not finite, which int8 cannot hold", where="form", instead="bfloat16, or exact"
        )
    flat = one.flatten(1)
    at = torch.float64 if one.dtype is torch.float64 else torch.float32
    if not flat.numel():
        low = high = torch.zeros(len(one), dtype=at, device=one.device)
    else:
        low, high = (side.to(at) for side in flat.aminmax(dim=1))
    middle, scale = low / 2 + high / 2, high / STEPS - low / STEPS
    steps = (flat.to(at) - middle[:, None]) / scale.where(scale > 0, 1)[:, None]
    whole = steps.round().clamp(-STEPS // 2, STEPS // 2).to(torch.int8)
    return {name: whole.view(one.shape), name + SCALE: scale, name + MIDDLE: middle}


def _largest(one: Tensor, back: Tensor) -> float:
    """The largest error, where both are finite."""
    off = (one.double() - back.double()).abs()
    off = off[off.isfinite()]
    return float(off.max()) if off.numel() else 0.0
