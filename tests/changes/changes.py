"""Random changes of mesh files: a value, a name, a size, a number, a field that was not there. Seeded, one at a time.

Half of them are aimed (`aimed.py`): at what must fit together.
"""

from __future__ import annotations

import copy
import random
from typing import Any

from aimed import AIMED
from places import NUMBERS, ODD, Place, members, places, sample, short, texts, typo
from pydantic import BaseModel

from kdmesh.plugins import KINDS, registry
from kdmesh.spec import MeshSpec
from kdmesh.spec.base import Named


def change(data: dict[str, Any], seed: int) -> tuple[dict[str, Any], str]:
    """A changed copy of a file's data, and what was changed, in words."""
    draw, data = random.Random(seed), copy.deepcopy(data)
    words = sorted({*texts(data), *(name for kind in KINDS for name in registry().names(kind))})
    if draw.random() < 0.5:
        while True:
            tried = copy.deepcopy(data)
            told = draw.choice(AIMED)(tried, draw, words)
            if told and repr(tried) != repr(data):
                return tried, told
    found = list(places({"": data}, "", MeshSpec, ""))
    holders = [place for place in found if isinstance(place.value, dict) and place.value]
    leaves = [place for place in found if place.path not in ("", "name", "description")]
    while True:
        how = draw.choice([_number, _text, _other, _drop, _rename, _double, _add, _add, _swap])
        place = draw.choice(holders if how in (_rename, _add) else leaves)
        before, told = repr(data), how(place, draw, words)
        if told and repr(data) != before:
            return data, f"{place.path}: {told}"


def smaller(data: Any, limit: int = 2) -> Any:
    """The same mesh with budgets of at most so many epochs, rounds and steps."""
    most = {"epochs": limit, "rounds": limit, "repeat": limit, "digest_epochs": limit, "steps": 8, "generations": 2}
    if isinstance(data, dict):
        own = {"start", "end"} <= data.keys()  # a ramp's length costs nothing
        return {
            key: min(value, most[key])
            if key in most and isinstance(value, int) and not isinstance(value, bool) and not own
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
    place.holder[place.key] = new = draw.choice([typo(value, draw), *(draw.choice(words) for _ in range(4))])
    return f"{value!r} becomes {new!r}"


def _other(place: Place, draw: random.Random, words: list[str]) -> str:
    """Something that its model allows, or nearly."""
    new = draw.choice([sample(place.allowed, draw, words)] * 4 + [draw.choice(ODD)])
    old, place.holder[place.key] = place.value, new
    return "" if new == old else f"{short(old)} becomes {new!r}"


def _drop(place: Place, draw: random.Random, words: list[str]) -> str:
    old = place.value
    del place.holder[place.key]
    return f"{short(old)} is gone"


def _rename(place: Place, draw: random.Random, words: list[str]) -> str:
    key = draw.choice(list(place.value))
    new = draw.choice([typo(str(key), draw), draw.choice(words)])
    items = [(new if name == key else name, value) for name, value in place.value.items()]
    place.value.clear()
    place.value.update(items)
    return f"{key!r} is called {new!r}"


def _double(place: Place, draw: random.Random, words: list[str]) -> str:
    if not isinstance(place.value, list) or not place.value:
        return ""
    place.value.append(copy.deepcopy(draw.choice(place.value)))
    return f"gains {short(place.value[-1])} once more"


def _add(place: Place, draw: random.Random, words: list[str]) -> str:
    """A field of the model that is not written there, with a value of its kind."""
    model = next((m for m in members(place.allowed) if isinstance(m, type) and issubclass(m, BaseModel)), None)
    if model is None or issubclass(model, Named):
        return ""
    free = [(field.alias or name, field) for name, field in model.model_fields.items()]
    free = [(name, field) for name, field in free if name not in place.value and name not in ("name", "description")]
    if not free:
        return ""
    name, field = draw.choice(free)
    place.value[name] = value = sample(field.annotation, draw, words)
    return f"gains {name}: {value!r}"


def _swap(place: Place, draw: random.Random, words: list[str]) -> str:
    """Another offer of the same kind in its place, or the same settings under its name."""
    named = next((m for m in members(place.allowed) if isinstance(m, type) and issubclass(m, Named)), None)
    if named is None or not named.kind or not isinstance(place.value, dict | str):
        return ""
    new, old = draw.choice(registry().names(named.kind)), place.value
    keeps = isinstance(old, dict) and draw.random() < 0.3
    place.holder[place.key] = {new: next(iter(old.values()))} if keeps else new
    return f"{short(old)} becomes {place.value!r}"
