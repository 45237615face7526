"""Names of agents, consensus nodes, streams, hosts and meshes: files and folders are called after them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, TypeVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from kdmesh.errors import MeshError

N = TypeVar("N", bound=Iterable[str])
LENGTH = 64
"""Largest number of characters in a name."""

BYTES = 200
"""Largest number of bytes in a name as UTF-8: with what is appended, file systems take 255."""

FORM = r"^(?!\.)([\w.-]|\[[0-9]+\])+$"
DIFFER = "names that differ in more than case"
BAD = "bad_name"  # pydantic's kind of our error; `what` and `instead` are in its context
ALLOWED = f"letters, digits, `_`, `.`, `-` and `[n]`, at most {LENGTH} characters, the first no `.`"


def fault(name: str) -> str:
    """What is wrong with a name; nothing if it is one."""
    if not name:
        return "is empty"
    if len(name) > LENGTH or len(name.encode("utf-8", "replace")) > BYTES:
        return f"is too long: {len(name)} characters"
    if name.startswith("."):
        return "begins with a dot"
    if not re.fullmatch(FORM, name):
        odd = dict.fromkeys(re.sub(r"[\w.-]|\[[0-9]+\]", "", name)) or dict.fromkeys(name[-1:])
        return f"has {', '.join(map(repr, odd))} in it"
    return ""


def instead(name: str) -> str:
    """What to write for a name that is none."""
    shown = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", name)).strip(".-")[:24]
    return f"{ALLOWED}: such as {shown}" if shown else ALLOWED


def twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are one, or that some file systems take for one: case, or how an accent is stored, differs."""
    seen: dict[str, str] = {}
    for name in names:
        if (key := folded(name)) in seen:
            return seen[key], name
        seen[key] = name
    return None


def folded(name: str) -> str:
    """A name without case, and with each character stored in one way."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def refuse(names: Iterable[str], where: str) -> None:
    """MeshError for the first of some names that is none, and for two that are alike."""
    names = list(names)
    for name in names:
        if why := fault(name):
            raise MeshError(f"the name {short(name)} {why}", where=where, instead=instead(name))
    if alike := twins(names):
        raise MeshError(_alike(*alike), where=where, instead=DIFFER)


def unique(names: N, beside: Iterable[str] = ()) -> N:
    """The same names, for a validator, which refuses two that are alike. ``beside``: other names of the same kind."""
    if alike := twins([*beside, *names]):
        raise PydanticCustomError(BAD, "{what}", {"what": _alike(*alike), "instead": DIFFER})
    return names


def short(name: str) -> str:
    """A name in quotes, its control characters escaped, cut where it is long."""
    return repr(name) if len(name) <= LENGTH else f"{name[:24]!r}..."


def _alike(first: str, second: str) -> str:
    if first == second:
        return f"the name {first!r} stands twice"
    return f"{first!r} and {second!r} differ in case alone, and some file systems take them for one"


def _check(name: str) -> str:
    if why := fault(name):
        raise PydanticCustomError(BAD, "{what}", {"what": f"the name {short(name)} {why}", "instead": instead(name)})
    return name


Name = Annotated[str, AfterValidator(_check)]
"""A name in a file."""
