"""What the annotations of the file's models say: their alternatives, and which are models themselves."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def alternatives(annotation: Any) -> list[Any]:
    """The alternatives of a union but None; of anything else, itself."""
    return [member for member in _flat(annotation) if member is not NoneType]


def is_model(annotation: Any, base: type[BaseModel]) -> bool:
    """Whether an annotation is a model of this kind."""
    return isinstance(annotation, type) and issubclass(annotation, base)


def _flat(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _flat(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _flat(member)
    else:
        yield annotation
