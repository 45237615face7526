"""Code as it was loaded: whether it is what stands in its file, what it reads, and its hash where no file has it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.imports import own_source

if TYPE_CHECKING:
    from collections.abc import Iterator


def stale(function: types.FunctionType) -> Path | None:
    """The file that a function of one's own code was loaded from, if it says another thing now; else None."""
    real = inspect.unwrap(function)
    code = getattr(real, "__code__", None)
    file = own_source(real.__module__ or "")
    if code is None or file is None or Path(code.co_filename).resolve() != file:
        return None
    return None if code in _codes(str(file), stamp(file)) else file


def defines(kind: type, name: str) -> bool:
    """Whether the source of a class has a method of this name; True where its source cannot be read."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    found = _codes(file, stamp(Path(file))) if file else frozenset()
    return not found or any(code.co_qualname == f"{kind.__qualname__}.{name}" for code in found)


def in_its_place(function: types.FunctionType) -> bool:
    """Whether a function is what its module has by its name: then the module's source says all of it."""
    found: Any = sys.modules.get(function.__module__ or "")
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def summed(code: types.CodeType) -> str:
    """A hash of code: its instructions, constants and names, and those of the functions within."""
    consts = [summed(one) if isinstance(one, types.CodeType) else _said(one) for one in code.co_consts]
    told = [code.co_code.hex(), *consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def names(code: types.CodeType) -> Iterator[str]:
    """The names of globals and attributes that code reads, with the functions within; in order, some twice."""
    yield from code.co_names
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from names(one)


def _said(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def stamp(file: Path) -> tuple[int, int]:
    """By what it is seen that a file was written anew: when, in ns, and its bytes; zeros where it is gone."""
    if not file.exists():
        return 0, 0
    found = file.stat()
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=256)
def _codes(file: str, stamp: tuple[int, int]) -> frozenset[types.CodeType]:
    """All code that a source has now; none where it cannot be compiled."""
    try:
        whole = compile(Path(file).read_bytes(), file, "exec", dont_inherit=True)
    except (OSError, ValueError, SyntaxError):
        return frozenset()
    found, waiting = [], [whole]
    for code in waiting:  # grows while it is read
        found.append(code)
        waiting += [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return frozenset(found)
