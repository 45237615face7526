"""Values that no field means: NaN, infinite or huge numbers, true in place of one, and objects that Python gave."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from kdmesh.errors import MeshError
from kdmesh.spec.annotations import alternatives, below, is_model
from kdmesh.spec.base import Named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GIVEN = "its name: modules are given by mesh.agent(NAME, module), data by kdmesh.Mesh(data=...)"
BITS = 63
"""Whole numbers are smaller than two to this power, and not below its negative."""


def refuse_odd_values(data: Any, model: type[BaseModel], where: str = "", file: str = "") -> None:
    """Raise MeshError at the first such value in data that ``model`` describes.

    What a model leaves open (``Any``) may be true, infinite or an object: whoever is given it knows. NaN never is.
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
        elif not isinstance(value, float):
            if Any not in allowed:
                raise MeshError(f"found an object, {type(value).__name__}", where=at, file=file, instead=GIVEN)
        elif math.isnan(value) or Any not in allowed:
            raise MeshError(f"found {value}", where=at, file=file, instead="a finite number")


def _odd(data: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every boolean, float that is not finite, whole number of too many bits and object, with its path."""
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
    elif not isinstance(data, str | BaseModel | None):
        yield path, data


def _allowed(kind: Any, path: Sequence[Any]) -> Iterator[Any]:
    """What may stand at a path below something of this kind: types, and ``Any`` where nobody says."""
    for member in alternatives(kind):
        if not path:
            yield member if isinstance(member, type) else Any if member is Any else type(None)
        elif is_model(member, Named):
            known = {name: field for config in member.usual.values() for name, field in config.model_fields.items()}
            field = known.get(path[1]) if len(path) > 1 else None
            yield from [Any] if field is None else _allowed(field.annotation, path[2:])
        elif inner := below(member, path[0]):
            yield from (allowed for kind in inner for allowed in _allowed(kind, path[1:]))
        else:  # an unknown field, what nobody describes, or a branch that was not meant
            yield Any if member in (Any, list, dict) or is_model(member, BaseModel) else type(None)


def seconds(value: Any, where: str) -> None:
    """Raise MeshError unless a value is a time in seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise MeshError(f"found {value!r}", where=where, instead="seconds, 0 or more")
