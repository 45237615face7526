"""What classes of torch take as arguments, by their annotations: what does not fit is refused in plain words."""

from __future__ import annotations

import inspect
import sys
import types
from collections import abc
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import torch

from kdmesh.errors import MeshError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

GIVEN = {"params", "optimizer", "last_epoch"}  # from here, and by no file
LISTS = (list, abc.Iterable, abc.Sequence)
SHOWN = 50  # characters of a value, or of what torch says of one


def arguments(kind: type, config: dict[str, Any], where: str) -> dict[str, inspect.Parameter]:
    """The arguments that a class takes. MeshError for one that it has not, of another type, or that is missing."""
    known = {name: one for name, one in inspect.signature(kind).parameters.items() if name not in GIVEN}
    for name, value in config.items():
        if name not in known:
            raise MeshError(
                f"{kind.__name__} has no argument {name!r}",
                where=where,
                instead=nearest(name, list(known), "arguments") if known else "no arguments",
            )
        wanted = _annotation(kind, known[name])
        default = known[name].default
        if not _fits(value, wanted) and not (value == default and type(value) is type(default)):
            raise MeshError(
                f"{name} of {kind.__name__} is {shown(value)}", where=f"{where}.{name}", instead=_words(wanted, default)
            )
    for name, one in known.items():
        if one.default is inspect.Parameter.empty and name not in config:
            wanted = _words(_annotation(kind, one), one.default)
            raise MeshError(f"{kind.__name__} needs `{name}`", where=where, instead=f"{name}: {wanted}")
    return known


def refused(
    kind: type,
    config: dict[str, Any],
    error: Exception,
    where: str,
    instead: str,
    works: Callable[[dict[str, Any]], Any],
) -> MeshError:
    """What to raise where torch refuses settings: about the one without which they work, if there is one.

    ``works(config)`` raises where torch refuses such settings.
    """
    for name, value in config.items():
        rest = {other: kept for other, kept in config.items() if other != name}
        try:
            works(rest)
        except Exception:
            continue
        default = inspect.signature(kind).parameters[name].default
        usual = shown(list(default) if isinstance(default, tuple) else default)
        return MeshError(
            f"{kind.__name__} refuses {name}: {shown(value)}: {said(error)}",
            where=f"{where}.{name}",
            instead=f"another value; by default it is {usual}",
        )
    return MeshError(f"{kind.__name__} is refused: {said(error)}", where=where, instead=instead)


def said(error: Exception) -> str:
    """The first line of what an exception says, with what it is where that alone tells little."""
    text = next(iter(str(error).splitlines()), "")
    if isinstance(error, ValueError | RuntimeError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shown(value: Any) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _annotation(kind: type, one: inspect.Parameter) -> Any:
    """What an argument may be; Any where that is not said, or cannot be read."""
    wanted = one.annotation
    if wanted is inspect.Parameter.empty:
        return Any
    if isinstance(wanted, str):
        names = {"Callable": abc.Callable, "Iterable": abc.Iterable, "Sequence": abc.Sequence, "Literal": Literal}
        try:
            wanted = eval(wanted, {**names, **vars(sys.modules[kind.__module__])})  # torch's own text
        except Exception:
            return Any
    return wanted


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value of a file can be such an argument."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin in LISTS:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if wanted in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return wanted is float or value == int(value)
    if wanted is type(None):
        return value is None
    return wanted in (bool, str) and isinstance(value, wanted)


def _words(wanted: Any, default: Any) -> str:
    """What to write for such an argument."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        words = dict.fromkeys(_words(part, default) for part in parts if part not in (torch.Tensor, type(None)))
        return " or ".join(words)
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is tuple:
        some = f", such as {list(default)}" if isinstance(default, tuple) else ""
        return f"{len(parts)} numbers{some}"
    if origin in LISTS:
        return f"a list of {'whole ' if parts[0] is int else ''}numbers"
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a name"}
    return names.get(wanted, "leave it out: a file cannot hold what it takes")
