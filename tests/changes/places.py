"""The places of a mesh file, each with what is allowed there, and values of that kind. Seeded by whom it is given.

The file is walked beside its models, so that a field that the spec or an offer gains is found too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from kdmesh.plugins import registry
from kdmesh.spec.base import Named

NUMBERS = [0, 1, 2, 3, 5, 10, 17, 100, 1000, 10**6, 10**12, 10**40, -1, 0.0, 0.1, 0.5, 0.999, 1.0, 1.5, 1e-9, 1e9]
ODD = [float("nan"), float("inf"), True, False, None, "", "many", "1", [], {}, [1], "none"]
SAMPLED = {bool: [True, False], int: NUMBERS[:11], float: NUMBERS, str: ["", "x"], type(None): [None]}


class Place(NamedTuple):
    """Somewhere in a file: what holds it, under which key, what its model allows there, and the path to it."""

    holder: Any
    key: Any
    allowed: Any
    path: str

    @property
    def value(self) -> Any:
        return self.holder[self.key]


def places(holder: Any, key: Any, allowed: Any, path: str) -> Iterator[Place]:
    """Every place of a part of a file, the part itself first."""
    yield Place(holder, key, allowed, path)
    value = holder[key]
    for inner, kind in _inside(value, allowed):
        yield from places(value, inner, kind, f"{path}.{inner}".lstrip("."))


def _inside(value: Any, allowed: Any) -> Iterator[tuple[Any, Any]]:
    """The keys below a value, each with what is allowed there."""
    if not isinstance(value, dict | list):
        return
    member = _meant(value, allowed)
    for key in value if isinstance(value, dict) else range(len(value)):
        if isinstance(member, type) and issubclass(member, Named):
            offered = member.kind and key in registry().names(member.kind)
            yield key, registry().find(member.kind, key).config if offered else Any
        elif isinstance(member, type) and issubclass(member, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in member.model_fields.items()}
            yield key, fields.get(key, Any)
        else:
            yield key, (get_args(member) or (Any,))[-1]


def _meant(value: Any, allowed: Any) -> Any:
    """The alternative of a union that a mapping or list is meant as."""
    for member in members(allowed):
        origin = get_origin(member) or member
        if isinstance(value, list) and origin is list:
            return member
        if isinstance(value, dict) and (origin is dict or (isinstance(origin, type) and issubclass(origin, BaseModel))):
            return member
    return Any


def members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return [one for member in get_args(annotation) for one in members(member)]
    return [annotation]


def sample(annotation: Any, draw: random.Random, words: list[str]) -> Any:
    """A value that an annotation allows, more or less."""
    member = draw.choice(members(annotation))
    origin = get_origin(member) or member
    if origin is Literal:
        return draw.choice(get_args(member))
    if origin in (list, tuple):
        return [sample((get_args(member) or (Any,))[0], draw, words) for _ in range(draw.choice([0, 1, 1, 2]))]
    if origin is dict:
        return {draw.choice(words): sample((get_args(member) or (Any,))[-1], draw, words)}
    if isinstance(member, type) and issubclass(member, Named):
        return draw.choice(registry().names(member.kind)) if member.kind else draw.choice(["sgd", "adam", "cosine"])
    if isinstance(member, type) and issubclass(member, BaseModel):
        fields = [(f.alias or n, f) for n, f in member.model_fields.items() if f.is_required() or draw.random() < 0.2]
        return {name: sample(field.annotation, draw, words) for name, field in fields}
    return draw.choice(words if member is str and draw.random() < 0.8 else SAMPLED.get(member, ODD))


def texts(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield str(key)
            yield from texts(value)
    elif isinstance(data, list):
        for item in data:
            yield from texts(item)
    elif isinstance(data, str) and len(data) < 40:
        yield data


def typo(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text))
    return draw.choice([text[:at] + text[at + 1 :], text[:at] + text[at] * 2 + text[at + 1 :], text.upper()])


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
