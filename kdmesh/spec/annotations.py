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


def below(annotation: Any, key: Any) -> list[Any]:
    """What an annotation allows below itself, under a key: alternatives, unions told apart."""
    found: list[Any] = []
    for member in alternatives(annotation):
        if is_model(member, BaseModel):
            fields = member.model_fields.items()
            found += [field.annotation for name, field in fields if key in (name, field.alias)]
        elif get_origin(member) in (list, tuple, dict):
            found.append(get_args(member)[-1])
    return [member for inner in found for member in alternatives(inner)]


def _flat(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _flat(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _flat(member)
    else:
        yield annotation
