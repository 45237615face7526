"""One exception a user can act on: where it is, what was found, what to write instead."""

from __future__ import annotations

import unicodedata
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

LISTED = 40  # names at most in a message


class MeshError(Exception):
    """The input is wrong: the command ends with exit code 2 and this message, without a traceback.

    ``where`` is the path inside the file (``agents.student.model``), ``what`` says what was found there,
    ``instead`` what to write. ``file`` is filled in by whoever knows which file was read.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", instead: str = "", file: str = "") -> None:
        super().__init__(what, where, instead, file)
        self.what, self.where, self.instead, self.file = what, where, instead, file

    def __str__(self) -> str:
        place = ": ".join(printable(part, breaks=False) for part in (self.file, self.where) if part)
        what, instead = printable(self.what), printable(self.instead)
        text = f"{place}: {what}" if place else what
        return f"{text}\n  instead: {instead}" if instead else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.instead, self.file)


class RunFailed(MeshError):
    """The run broke although its input was right (a loss that became NaN, say): exit code 1."""

    exit_code = 1


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
    listed = ", ".join(known[:LISTED]) + (", ..." if len(known) > LISTED else "")
    return f"{meant(name, known, several)}{noun}: {listed or 'none'}"


def meant(name: str, known: Iterable[str], several: bool = False) -> str:
    """``did you mean 'mean'? `` of the known name that is closest, "" where none is close; see :func:`nearest`."""
    known = sorted(known)
    groups = {f"{one.rpartition('[')[0]}[*]" for one in known if one.endswith("]")} if several else set()
    folded = {one.casefold(): one for one in (known if not groups else [one for one in known if one[-1] != "]"])}
    folded |= {word: group for group in groups for word in (group.casefold(), group.casefold().removesuffix("[*]"))}
    close = [folded[one] for one in get_close_matches(name.casefold(), folded, n=1)]
    return f"did you mean {close[0]!r}? " if close else ""
