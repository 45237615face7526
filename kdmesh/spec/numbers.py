"""Numbers that a file cannot mean: not a number, infinite ones, beyond 64 bits, and true or false in place of one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from kdmesh.errors import MeshError
from kdmesh.spec.annotations import alternatives, is_model
from kdmesh.spec.base import Named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BITS = 63
"""Whole numbers are smaller than two to this power, and not below its negative."""


def refuse_odd_numbers(data: Any, model: type[BaseModel], where: str = "", file: str = "") -> None:
    """Raise MeshError at the first such number in plain data that ``model`` describes.

    What a model leaves open (``Any``) may be true, false or infinite: whoever is given it knows. NaN never is.
    """
    for path, value in _odd(data, ()):
        allowed = set(_allowed(model, path))
        at = ".".join(str(part) for part in ([where] if where else []) + list(path))
        if isinstance(value, bool):
            if allowed & {int, float} and not allowed & {bool, Any}:
                raise MeshError(f"found {str(value).lower()}", where=at, file=file, instead="a number")
        elif isinstance(value, int):
            what = f"a whole number of {value.bit_length():,} bits"
            raise MeshError(what, where=at, file=file, instead=f"a number below 2^{BITS}")
        elif math.isnan(value) or Any not in allowed:
            raise MeshError(f"found {value}", where=at, file=file, instead="a finite number")


def _odd(data: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every boolean, every float that is not finite, and every whole number of too many bits, with its path."""
    if isinstance(data, bool):
        yield path, data
    elif isinstance(data, int):
        if not -(1 << BITS) <= data < 1 << BITS:
            yield path, data
    elif isinstance(data, float):
        if not math.isfinite(data):
            yield path, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _odd(value, (*path, key))
    elif isinstance(data, list | tuple):
        for number, value in enumerate(data):
            yield from _odd(value, (*path, number))


def _allowed(kind: Any, path: Sequence[Any]) -> Iterator[Any]:
    """What may stand at a path below something of this kind: types, and ``Any`` where nobody says."""
    for member in alternatives(kind):
        if not path:
            yield member if isinstance(member, type) else Any if member is Any else type(None)
        elif is_model(member, Named):
            known = {name: field for config in member.usual.values() for name, field in config.model_fields.items()}
            field = known.get(path[1]) if len(path) > 1 else None
            yield from [Any] if field is None else _allowed(field.annotation, path[2:])
        elif is_model(member, BaseModel):
            field = next((f for name, f in member.model_fields.items() if path[0] in (name, f.alias)), None)
            yield from [Any] if field is None else _allowed(field.annotation, path[1:])
        elif get_args(member) and get_origin(member) in (list, tuple, dict):
            yield from _allowed(get_args(member)[-1], path[1:])
        else:
            yield Any if member is Any or member in (list, dict) else type(None)
