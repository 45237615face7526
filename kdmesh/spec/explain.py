"""Turn pydantic's errors into one message in the words of the file: where it is, what was found, what to write."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from kdmesh.errors import MeshError, nearest
from kdmesh.spec.annotations import alternatives, is_model
from kdmesh.spec.base import Named
from kdmesh.spec.elsewhere import elsewhere, fields
from kdmesh.spec.names import BAD

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

LISTED = 5
"""Problems that are told at once."""

ODD = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u00a0\u200b\u2009\u202f\u3000\ufeff "
"""Quotes that are none to YAML, and spaces that are none: what editors put around a name."""

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "{name: ...}"}
_MANY = {str: "a list of names", int: "a list of whole numbers", float: "a list of numbers"}
_BOUNDS = ("greater_than", "less_than", "multiple_of", "finite_number", "too_", "string_", "list_", "dict_")


def explain(
    error: ValidationError, model: type[BaseModel], where: str = "", file: str = "", data: Any = None
) -> MeshError:
    """Return the one error to raise for ``error``, which validating ``model`` gave.

    ``where`` is the path of the model inside the file. Paths are those the user wrote: aliases (`from`), no branches of
    unions, no class names. An unknown field is told where it belongs, or the nearest of the model at its path; the
    names in ``data``, which was validated, are kept. The first problem fills the error's fields; up to four more are
    appended to its text, unknown fields before what is missing because of them.
    """
    found = [_Place.of(model, details) for details in error.errors(include_url=False)]
    deeper = {place.path[:depth] for place in found for depth in range(len(place.path))}
    found = [place for place in found if not (place.union and place.path in deeper)]  # the branch not meant
    found.sort(key=lambda place: place.details["type"] != "extra_forbidden")
    problems = [
        _problem(list(places), data) for _, places in groupby(found, key=lambda place: (place.path, place.union))
    ]
    first, rest = problems[0], problems[1:]
    more = [
        f"also {_join(where, other.path)}: {'; '.join(part for part in (other.what, other.instead) if part)}"
        for other in rest[: LISTED - 1]
    ]
    if len(rest) >= LISTED:
        more.append(f"and {len(rest) - LISTED + 1} more")
    what, instead = first.what, first.instead
    if instead:
        instead = "\n  ".join([instead, *more])
    else:
        what = "\n  ".join([what, *more])
    return MeshError(what, where=_join(where, first.path), instead=instead, file=file)


class _Problem(NamedTuple):
    path: tuple[str, ...]
    what: str
    instead: str


@dataclass(frozen=True)
class _Place:
    """Where an error points to: the path as written, and what the models say is allowed there."""

    details: ErrorDetails
    path: tuple[str, ...]
    allowed: Any  # annotation of the value; of the whole union if the error is of one of its branches
    owner: type[BaseModel]  # the model that has, or lacks, the last field of the path
    field: FieldInfo | None  # the field itself, unless the path goes on inside it
    union: bool

    @classmethod
    def of(cls, model: type[BaseModel], details: ErrorDetails) -> _Place:
        path: list[str] = []
        here: Any = model
        owner, field, union = model, None, None
        for part in details["loc"]:
            members = alternatives(here)
            if len(members) > 1:  # pydantic names the branch it tried here
                union, here = here, next((member for member in members if _is_label(str(part), member)), None)
                continue
            here, union = members[0] if members else None, None
            if is_model(here, Named):
                break  # `name` and `config` are no words of the file
            if part != "[key]":
                path.append(str(part))
            if is_model(here, BaseModel):
                owner = here
                field = next((f for n, f in here.model_fields.items() if part in (n, f.alias)), None)
                here = field.annotation if field else None
            else:
                inside = get_args(here)
                here, field = inside[-1] if inside and part != "[key]" else None, None
        allowed = here if union is None else union
        return cls(details, tuple(path), allowed, owner, field, union is not None)


def _problem(places: Sequence[_Place], data: Any) -> _Problem:
    """Tell what is wrong at one path; several places are the branches of one union."""
    place = places[0]
    details, kind, value = place.details, place.details["type"], place.details["input"]
    about = f" ({place.field.description})" if place.field and place.field.description else ""
    if kind == "extra_forbidden":
        return _Problem(place.path, "unknown field", _instead(place, data))
    if kind == "missing":
        return _Problem(place.path, "is missing", f"add `{place.path[-1]}: ...`{about}")
    said = [str(p.details["ctx"]["error"]) for p in places if p.details["type"] in ("value_error", "assertion_error")]
    if said:
        return _Problem(place.path, said[0] if _short(value) in said[0] else f"{said[0]}; found {_short(value)}", "")
    if kind == BAD:
        of_key = details["loc"][-1:] == ("[key]",)
        ctx = details["ctx"]
        return _Problem(place.path[:-1] if of_key else place.path, ctx["what"], ctx["instead"])
    if details["loc"][-1:] == ("[key]",):
        return _Problem(place.path, f"the name {_short(value)} is not text", f"put it in quotes: '{value}'")
    words = words_of(place.allowed, value)
    if not words or (kind.startswith(_BOUNDS) and not kind.endswith("_type")):
        words = (
            details["msg"].removeprefix("Input should be ").replace("String should match pattern", "text that matches")
        )
        if kind == "too_short":
            words = f"at least {details['ctx']['min_length']} of them"
    return _Problem(place.path, f"found {_short(value)}", words + about)


def _instead(place: _Place, data: Any) -> str:
    """What to write in place of a field that is unknown where it stands."""
    from kdmesh.spec.mesh import MeshSpec

    name, known = place.path[-1], fields(place.owner)
    if slip := _slip(name, known):
        return slip
    if not known:  # where else the name is a field is no help: what is meant is a setting of this
        return "leave it out: it has no settings"
    there = elsewhere(name, place.details["input"], place.owner, _at(data, place.path[:-1]), MeshSpec, data)
    listed = nearest(name, known, "fields")
    return f"{there}; {listed}" if there else listed


def _slip(name: str, known: Container[str]) -> str:
    """What to write for a field that only lacks a space, or has a sign too many that is hardly seen."""
    field, colon, value = name.replace("\uff1a", ":").partition(":")
    if colon and field.strip() in known:
        return f"`{field.strip()}: {value.strip()[:30] or '...'}`, with a space after the colon"
    plain = name.strip(ODD)
    if plain == name:
        return ""
    odd = ", ".join(f"U+{ord(sign):04X}" for sign in dict.fromkeys(name) if sign in ODD)
    return f"`{plain}`: YAML takes {odd} for part of the name" + ("" if plain in known else ", and for no indent")


def _at(data: Any, path: Sequence[str]) -> Any:
    """What stands at a path of plain data; None where nothing does."""
    for part in path:
        try:
            data = data[part] if isinstance(data, dict) else data[int(part)]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return data


def words_of(annotation: Any, value: Any = None) -> str:
    """Say in plain words what an annotation allows."""
    members = alternatives(annotation)
    if float in members:
        members = [member for member in members if member is not int]
    literals = [str(choice) for member in members if get_origin(member) is Literal for choice in get_args(member)]
    told = [nearest(value if isinstance(value, str) else "", literals, "allowed")] if literals else []
    for member in members:
        origin = get_origin(member) or member
        if origin in (list, tuple, set, frozenset):
            told.append(_MANY.get((get_args(member) or (None,))[0], "a list"))
        elif is_model(member, Named):
            told.append("a name, or {name: {setting: value}}")
        elif is_model(member, BaseModel):
            told.append("{" + ", ".join(f"{name}: ..." for name in _shown(member)) + "}")
        elif origin in _WORDS:
            told.append(_WORDS[origin])
    return " or ".join(told)


def _shown(model: type[BaseModel]) -> list[str]:
    """The fields to show of a model: those it requires, or else its first three."""
    fields = [(field.alias or name, field.is_required()) for name, field in model.model_fields.items()]
    return [name for name, required in fields if required] or [name for name, _ in fields[:3]]


def _is_label(label: str, member: Any) -> bool:
    """Whether pydantic's name of a branch (``literal['a']``, ``dict[str,int]``, ``Ramp``) means this member."""
    name = getattr(get_origin(member) or member, "__name__", "").lower()
    label = label.lower()
    return label == name or label.startswith(f"{name}[") or label.endswith((f"-{name}", f" {name}]"))


def _join(where: str, path: Sequence[str]) -> str:
    return ".".join(part for part in (where, *path) if part)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
