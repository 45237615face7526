"""Words of a list: names of patients or employees, which no pattern knows. No paper: it looks them up."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from kdmesh import files
from kdmesh.contracts.recogniser import Entity, Recogniser
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Words(Recogniser):
    """Finds the entries of ``words``, and the lines of the file ``path``, as ``kind``: whole words, longest first.

    An entry with accents is found however these are encoded: in one character with the letter, or after it.
    """

    def __init__(self, words: list[str], path: str | None, kind: str, ignore_case: bool) -> None:
        entries = {*words, *(() if path is None else _lines(Path(path)))}
        entries |= {unicodedata.normalize(form, one) for one in entries for form in ("NFC", "NFD")}
        ordered = sorted(entries, key=lambda one: (-len(one), one))
        self._kind = kind
        self._pattern = re.compile(
            rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)", re.IGNORECASE if ignore_case else 0
        )

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """Every entry, wherever it stands."""
        return [[Entity(*found.span(), self._kind) for found in self._pattern.finditer(text)] for text in texts]


def _lines(path: Path) -> list[str]:
    where = "words.path"
    try:
        found = [line.strip() for line in files.read(path).splitlines()]
    except (OSError, UnicodeError) as error:
        raise MeshError(
            f"{path}: {error}", where=where, instead="a text file in UTF-8, an entry on each line"
        ) from None
    if not any(found):
        raise MeshError(f"{path} has no entry", where=where, instead="an entry on each line")
    return [line for line in found if line]
