"""One exception a user can act on: where it is, what was found, what to write instead.

And frames: the code on the way to an error that is a plugin's, neither ours nor that of a library, or of Python.
"""

from __future__ import annotations

import os
import unicodedata
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from traceback import FrameSummary, TracebackException


_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

LISTED = 40  # names at most in a message
LONGEST = 600  # characters of what others' code raised, at most
FAULTS = (Exception, SystemExit)
"""What code of others raises that is attributed to it: a wish to exit, too, which would end the run without a word."""
TRACEBACK = "KDMESH_TRACEBACK"
"""The switch by which frames of plugins are printed beside errors."""
OURS = Path(__file__).parent
INSTALLED = ("site-packages", "dist-packages")  # folders of packages, which may lie within Python's own
LIBRARIES = {"torch", "numpy", "transformers", "pydantic", "pydantic_core", "pluggy", "ray"}


_UNTOLD: ContextVar[bool] = ContextVar("untold", default=False)


@contextmanager
def untold() -> Iterator[None]:
    """Within it :func:`quoted` tells of no value what it is: of data that may be personal."""
    before = _UNTOLD.set(True)
    try:
        yield
    finally:
        _UNTOLD.reset(before)


def may_quote() -> bool:
    """Whether messages may say what data hold."""
    return not _UNTOLD.get()


def quoted(value: object, most: int = 40) -> str:
    """A value of the data for a message, at most so long; where it may be personal only how long it is."""
    return f"{value!r:.{most}}" if may_quote() else f"what is there ({len(str(value)):,} characters)"


class MeshError(Exception):
    """The input is wrong: the command ends with exit code 2 and this message, without a traceback.

    ``where`` is the path inside the file (``agents.student.model``), ``what`` says what was found there,
    ``instead`` what to write. ``file`` is filled in by whoever knows which file was read.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", instead: str = "", file: str = "") -> None:
        super().__init__(what, where, instead, file)
        self.what, self.where, self.instead, self.file = what, where, instead, file
        self.frames = ""  # of a plugin, where it was raised for them in another process

    def __str__(self) -> str:
        place = ": ".join(printable(part, breaks=False) for part in (self.file, self.where) if part)
        what, instead = printable(self.what), printable(self.instead)
        text = f"{place}: {what}" if place else what
        return f"{text}\n  instead: {instead}" if instead else text

    def __reduce__(self) -> tuple[object, ...]:
        # whoever unpickles it has no traceback
        return _rebuild, (type(self), self.what, self.where, self.instead, self.file), {"frames": frames_of(self)}


class RunFailed(MeshError):
    """The run broke although its input was right (a loss that became NaN, say): exit code 1."""

    exit_code = 1


class RunPaused(RunFailed):
    """The run stands still for what its user has to decide, a spent budget say; it can be resumed."""


class HostLost(RunFailed):
    """The process of a host is gone. ``host``: its name."""

    host: str = ""


def printable(text: str, breaks: bool = True) -> str:
    """Text with escapes in place of what a terminal would obey or hide; ``breaks``: line feeds stay.

    These are control characters (as those that begin an ANSI escape), and the ones that turn the direction of writing.
    """
    return "".join(one if breaks and one == "\n" else _escaped(one) for one in text) if _odd(text) else text


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode() if _odd(one) else one


def _odd(text: str) -> bool:
    return not text.isprintable() and any(
        unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") or one in _TURNS for one in text
    )


def _rebuild(kind: type[MeshError], what: str, where: str, instead: str, file: str) -> MeshError:
    """Unpickle: exceptions cross from Ray's workers with their fields."""
    return kind(what, where=where, instead=instead, file=file)


def nearest(name: str, known: Iterable[str], noun: str, several: bool = False) -> str:
    """Say which known name was probably meant, and list what there is.

    ``several``: `party[*]` may stand for all of `party[0]`, `party[1]` ...
    """
    known = sorted(known)
    listed = ", ".join(printable(one, breaks=False) for one in known[:LISTED])
    listed += ", ..." if len(known) > LISTED else ""
    return f"{meant(name, known, several)}{noun}: {listed or 'none'}"


def meant(name: str, known: Iterable[str], several: bool = False) -> str:
    """``did you mean 'mean'? `` of the known name that is closest, "" where none is close; see :func:`nearest`."""
    known = sorted(known)
    groups = {f"{one.rpartition('[')[0]}[*]" for one in known if one.endswith("]")} if several else set()
    folded = {one.casefold(): one for one in (known if not groups else [one for one in known if one[-1] != "]"])}
    folded |= {word: group for group in groups for word in (group.casefold(), group.casefold().removesuffix("[*]"))}
    close = [folded[one] for one in get_close_matches(name.casefold(), folded, n=1)]
    return f"did you mean {close[0]!r}? " if close else ""


def wanted() -> bool:
    """Whether frames of plugins are to be printed."""
    return os.environ.get(TRACEBACK) not in (None, "", "0")


def text_of(error: BaseException) -> str:
    """The type and text of what code of others raised, as far as there is one: at most some lines of it."""
    try:
        text = str(error)
    except Exception as fault:
        text = f"(its text cannot be made: {type(fault).__name__})"
    more = "" if len(text) <= LONGEST else f" ... ({len(text):,} characters)"
    return f"{type(error).__name__}: {text[:LONGEST].rstrip()}{more}"


def line_of(error: BaseException) -> str:
    """The last line of a plugin's code on the way to an error: `` (foo.py, line 12)``; "" where there is none."""
    from traceback import extract_tb  # errors alone want it

    theirs = [frame for frame in extract_tb(error.__traceback__) if _foreign(frame)]
    return f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""


def stopped(error: BaseException) -> bool:
    """Whether a process is to end for another reason than a plugin's wish: Ray's handler of a SIGTERM does so."""
    from traceback import extract_tb

    return isinstance(error, SystemExit) and not any(map(_foreign, extract_tb(error.__traceback__)[-1:]))


def frames_of(error: BaseException) -> str:
    """A traceback that begins where a plugin's code does: of an error, or of what it was raised for; "" without one.

    An error that came from another process has it as text, ``frames``.
    """
    from traceback import TracebackException, extract_tb

    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if text := getattr(one, "frames", ""):
            return str(text)
        if any(map(_foreign, extract_tb(one.__traceback__))):
            return "".join(_from_theirs(TracebackException.from_exception(one)).format())
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return ""


def shown(error: BaseException) -> str:
    """What is printed below an error where that is asked for, with a line break before it; else nothing."""
    if not wanted():
        return ""
    return f"\n{frames_of(error).rstrip() or '(no code of a plugin on the way to it: there is nothing to trace)'}"


def _from_theirs(told: TracebackException) -> TracebackException:
    """The same without our frames before the first one of a plugin, there and in what it was raised for."""
    from traceback import StackSummary

    one: TracebackException | None = told
    while one is not None:
        first = next((number for number, frame in enumerate(one.stack) if _foreign(frame)), len(one.stack))
        one.stack = StackSummary.from_list(list(one.stack)[first:])
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return told


def _foreign(frame: FrameSummary) -> bool:
    path = Path(frame.filename)
    if path.suffix != ".py" or path.is_relative_to(OURS):
        return False
    package = next((path.parts[at + 1] for at, part in enumerate(path.parts[:-1]) if part in INSTALLED), None)
    return not path.is_relative_to(_python()) if package is None else Path(package).stem not in LIBRARIES


@cache
def _python() -> Path:
    """Where Python's own modules are."""
    import sysconfig

    return Path(sysconfig.get_path("stdlib"))
