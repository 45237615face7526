"""The space of a sweep, as the command line writes it: ``PATH=1,2,4``, ``PATH=1..8``, ``PATH=log:1e-4..1e-1``."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.sampler import Choices, Range
from kdmesh.errors import MeshError
from kdmesh.spec.yaml12 import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.sampler import Axis

_NUMBER = r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_RANGE = re.compile(rf"(log:)?{_NUMBER}\.\.{_NUMBER}")
_SAME = "a field that changes what is trained"
UNSEARCHED = {
    "name": _SAME,
    "description": _SAME,
    "seed": "--search-seeds",
    "data.seed": "one split: kdmesh compare --splits compares on several",
}
"""Paths that no sweep goes over, and what to say instead: figures of other samples, or of luck, choose nothing."""


def axes(given: Sequence[str]) -> list[Axis]:
    """Read what ``--over`` said. MeshError for what is no axis, and for a path that comes twice."""
    found: dict[str, Axis] = {}
    for text in given:
        one = axis(text)
        if one.path in found:
            raise MeshError("stands twice", where=f"--over {one.path}", instead="all its values at once")
        found[one.path] = one
    if not found:
        raise MeshError("there is nothing to search", where="--over", instead="--over train.batch_size=32,64")
    return list(found.values())


def axis(text: str) -> Axis:
    """Read one axis."""
    path, equals, values = (part.strip() for part in text.partition("="))
    where = f"--over {path}"
    if not equals or not path or not values:
        raise MeshError(f"found {text!r}", where="--over", instead="PATH=1,2,4, PATH=1..8, or PATH=log:1e-4..1e-1")
    if not all(path.split(".")):
        raise MeshError(f"{path!r} is no path", where="--over", instead="path.to.field=VALUES")
    if path in UNSEARCHED:
        raise MeshError("is not searched", where=where, instead=UNSEARCHED[path])
    if match := _RANGE.fullmatch(values):
        return _range(path, match, where)
    listed = load(f"[{values}]", where=where)
    different = {json.dumps(_plain(value), sort_keys=True): value for value in listed}
    if len(different) < len(listed):
        raise MeshError(f"a value stands twice in {values}", where=where, instead="each value once")
    if len(listed) < 2:
        raise MeshError("one value is nothing to search", where=where, instead=f"--set {path}={values}")
    return Choices(path=path, values=listed)


def _range(path: str, match: re.Match[str], where: str) -> Range:
    low, high = (_number(match[part]) for part in (2, 3))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise MeshError(f"{match[2]}..{match[3]} has no end", where=where, instead="finite numbers")
    if not low < high:
        raise MeshError(f"{match[2]} is not below {match[3]}", where=where, instead="the lower end first")
    if match[1] and low <= 0:
        raise MeshError(f"{match[2]} has no logarithm", where=where, instead="a range above 0, or one without log:")
    return Range(path=path, low=low, high=high, log=bool(match[1]))


def _plain(value: Any) -> Any:
    """The value with whole numbers as real ones: 1 and 1.0 are one value of a setting."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return float(value) if type(value) is int and abs(value) < 2**53 else value


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def size(space: Sequence[Axis]) -> int | None:
    """How many points there are; None where axes are ranges of real numbers."""
    total = 1
    for one in space:
        listed: list[Any] | None = one.listed()
        if listed is None:
            return None
        total *= len(listed)
    return total
