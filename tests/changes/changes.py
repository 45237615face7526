"""Random changes of mesh files: a value, a name, a size, a number, a field that was not there. Seeded, one at a time.

The file is walked beside its models, so that a field that the spec or an offer gains is changed too.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from kdmesh.plugins import KINDS, registry
from kdmesh.spec import MeshSpec
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


def change(data: dict[str, Any], seed: int) -> tuple[dict[str, Any], str]:
    """A changed copy of a file's data, and what was changed, in words."""
    draw, data = random.Random(seed), copy.deepcopy(data)
    words = sorted({*_texts(data), *(name for kind in KINDS for name in registry().names(kind))})
    places = list(_places({"": data}, "", MeshSpec, ""))
    holders = [place for place in places if isinstance(place.value, dict) and place.value]
    leaves = [place for place in places if place.path not in ("", "name", "description")]
    while True:
        how = draw.choice([_number, _text, _other, _drop, _rename, _double, _add, _add, _swap])
        place = draw.choice(holders if how in (_rename, _add) else leaves)
        before, told = repr(data), how(place, draw, words)
        if told and repr(data) != before:
            return data, f"{place.path}: {told}"


def smaller(data: Any, limit: int = 2) -> Any:
    """The same mesh with budgets of at most so many epochs, rounds and steps."""
    short = {"epochs": limit, "rounds": limit, "repeat": limit, "digest_epochs": limit, "steps": 8, "generations": 2}
    if isinstance(data, dict):
        own = {"start", "end"} <= data.keys()  # a ramp's length costs nothing
        return {
            key: min(value, short[key])
            if key in short and isinstance(value, int) and not isinstance(value, bool) and not own
            else smaller(value, limit)
            for key, value in data.items()
        }
    return [smaller(item, limit) for item in data] if isinstance(data, list) else data


def _number(place: Place, draw: random.Random, words: list[str]) -> str:
    value = place.value
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    near = [value + 1, value - 1, value * 2, value / 2, value * 10, -value, float(value), value * 1000]
    place.holder[place.key] = new = draw.choice([*near, *near, *NUMBERS, *ODD])
    return f"{value!r} becomes {new!r}"


def _text(place: Place, draw: random.Random, words: list[str]) -> str:
    value = place.value
    if not isinstance(value, str) or not value:
        return ""
    place.holder[place.key] = new = draw.choice([_typo(value, draw), *(draw.choice(words) for _ in range(4))])
    return f"{value!r} becomes {new!r}"


def _other(place: Place, draw: random.Random, words: list[str]) -> str:
    """Something that its model allows, or nearly."""
    new = draw.choice([_sample(place.allowed, draw, words)] * 4 + [draw.choice(ODD)])
    old, place.holder[place.key] = place.value, new
    return "" if new == old else f"{_short(old)} becomes {new!r}"


def _drop(place: Place, draw: random.Random, words: list[str]) -> str:
    old = place.value
    del place.holder[place.key]
    return f"{_short(old)} is gone"


def _rename(place: Place, draw: random.Random, words: list[str]) -> str:
    key = draw.choice(list(place.value))
    new = draw.choice([_typo(str(key), draw), draw.choice(words)])
    items = [(new if name == key else name, value) for name, value in place.value.items()]
    place.value.clear()
    place.value.update(items)
    return f"{key!r} is called {new!r}"


def _double(place: Place, draw: random.Random, words: list[str]) -> str:
    if not isinstance(place.value, list) or not place.value:
        return ""
    place.value.append(copy.deepcopy(draw.choice(place.value)))
    return f"gains {_short(place.value[-1])} once more"


def _add(place: Place, draw: random.Random, words: list[str]) -> str:
    """A field of the model that is not written there, with a value of its kind."""
    model = next((m for m in _members(place.allowed) if isinstance(m, type) and issubclass(m, BaseModel)), None)
    if model is None or issubclass(model, Named):
        return ""
    free = [(field.alias or name, field) for name, field in model.model_fields.items()]
    free = [(name, field) for name, field in free if name not in place.value and name not in ("name", "description")]
    if not free:
        return ""
    name, field = draw.choice(free)
    place.value[name] = value = _sample(field.annotation, draw, words)
    return f"gains {name}: {value!r}"


def _swap(place: Place, draw: random.Random, words: list[str]) -> str:
    """Another offer of the same kind in its place, or the same settings under its name."""
    named = next((m for m in _members(place.allowed) if isinstance(m, type) and issubclass(m, Named)), None)
    if named is None or not named.kind or not isinstance(place.value, dict | str):
        return ""
    new, old = draw.choice(registry().names(named.kind)), place.value
    keeps = isinstance(old, dict) and draw.random() < 0.3
    place.holder[place.key] = {new: next(iter(old.values()))} if keeps else new
    return f"{_short(old)} becomes {place.value!r}"


def _places(holder: Any, key: Any, allowed: Any, path: str) -> Iterator[Place]:
    """Every place of a part of a file, the part itself first."""
    yield Place(holder, key, allowed, path)
    value = holder[key]
    for inner, kind in _inside(value, allowed):
        yield from _places(value, inner, kind, f"{path}.{inner}".lstrip("."))


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
    for member in _members(allowed):
        origin = get_origin(member) or member
        if isinstance(value, list) and origin is list:
            return member
        if isinstance(value, dict) and (origin is dict or (isinstance(origin, type) and issubclass(origin, BaseModel))):
            return member
    return Any


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return [one for member in get_args(annotation) for one in _members(member)]
    return [annotation]


def _sample(annotation: Any, draw: random.Random, words: list[str]) -> Any:
    """A value that an annotation allows, more or less."""
    member = draw.choice(_members(annotation))
    origin = get_origin(member) or member
    if origin is Literal:
        return draw.choice(get_args(member))
    if origin in (list, tuple):
        return [_sample((get_args(member) or (Any,))[0], draw, words) for _ in range(draw.choice([0, 1, 1, 2]))]
    if origin is dict:
        return {draw.choice(words): _sample((get_args(member) or (Any,))[-1], draw, words)}
    if isinstance(member, type) and issubclass(member, Named):
        return draw.choice(registry().names(member.kind)) if member.kind else draw.choice(["sgd", "adam", "cosine"])
    if isinstance(member, type) and issubclass(member, BaseModel):
        fields = [(f.alias or n, f) for n, f in member.model_fields.items() if f.is_required() or draw.random() < 0.2]
        return {name: _sample(field.annotation, draw, words) for name, field in fields}
    return draw.choice(words if member is str and draw.random() < 0.8 else SAMPLED.get(member, ODD))


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(data, list):
        for item in data:
            yield from _texts(item)
    elif isinstance(data, str) and len(data) < 40:
        yield data


def _typo(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text))
    return draw.choice([text[:at] + text[at + 1 :], text[:at] + text[at] * 2 + text[at + 1 :], text.upper()])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
