"""Text that fits the terminal: paragraphs, and the one writer of tables that every command uses.

Widths are counted in cells: wide characters take two.
"""

from __future__ import annotations

import os
import re
import sys
from typing import IO, TYPE_CHECKING

from rich.cells import cell_len

from kdmesh.errors import printable

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

PIPE = 80  # cells of a line where no terminal tells how many it has
GAP = 2  # cells between columns
WHOLE = re.compile(r"\w*[/:]\S*[^\s:]$|.*://|.*/")  # paths, URLs and `module:Name` are not broken at a line's end


def terminal_width(file: IO[str] | None = None) -> int:
    """How many cells a line of this stream (by default stdout) has: as many as its terminal, elsewhere 80."""
    stream = file or sys.stdout
    try:
        return os.get_terminal_size(stream.fileno()).columns or PIPE if stream.isatty() else PIPE
    except (OSError, ValueError, AttributeError):
        return PIPE


def wrap(text: str, width: int, more: str = "") -> list[str]:
    """Text in lines of at most ``width`` cells; its own indent stays, and ``more`` is put before what follows.

    A line that fits is left as it is. Words that are longer than a line are broken, but for paths and URLs.
    """
    lines: list[str] = []
    for one in printable(text).split("\n"):
        indent = one[: len(one) - len(one.lstrip())]
        lines += [one] if cell_len(one) <= width else _folded(one.split(), width, indent, indent + more, False)
    return lines


def table(
    rows: Sequence[Sequence[str]], width: int, right: Container[int] = (), heads: int = 0, rule: str = ""
) -> list[str]:
    """Rows of text in aligned columns, in lines of at most ``width`` cells: cells of wide columns fold.

    ``right``: columns to align to the right, which fold last; ``heads``: how many rows at the top are headings, which
    stand at the bottom of their line; ``rule``: a character to draw a line of below them.
    """
    if not rows:
        return []
    rows = [[printable(cell) for cell in row] for row in rows]
    columns = range(len(rows[0]))
    gap = GAP if len(columns) * (1 + GAP) - GAP <= width else 1
    widths = _widths(rows, width - gap * (len(columns) - 1), right)
    lines: list[str] = []
    for number, row in enumerate(rows):
        cells = [_cell(row[column], widths[column], column == columns[-1]) for column in columns]
        high = max(map(len, cells))
        above = [high - len(cell) if number < heads else 0 for cell in cells]
        for line in range(high):
            parts = [
                _aligned(cell[line - before] if 0 <= line - before < len(cell) else "", widths[column], column in right)
                for column, (cell, before) in enumerate(zip(cells, above, strict=True))
            ]
            lines.append((" " * gap).join(parts).rstrip())
        if rule and number == heads - 1:
            lines.append(rule * (sum(widths) + gap * (len(widths) - 1)))
    return lines


def _widths(rows: Sequence[Sequence[str]], width: int, right: Container[int]) -> list[int]:
    """The columns' widths: first the widest give way, but for whole words; then words; at last what aligns right."""
    texts = [[row[column] for row in rows] for column in range(len(rows[0]))]
    widths = [max(cell_len(line) for text in column for line in text.split("\n")) for column in texts]
    words = [max((cell_len(word) for text in column for word in text.split()), default=1) for column in texts]
    letters = [max((cell_len(letter) for text in column for letter in {*text}), default=1) for column in texts]
    rest = sum(widths) - width
    ours = [column for column in range(len(texts)) if column not in right]
    for columns, least in ((ours, words), (ours, letters), (range(len(texts)), letters)):
        while rest > 0 and (wide := [column for column in columns if widths[column] > least[column]]):
            widths[max(wide, key=lambda column: (widths[column], column))] -= 1
            rest -= 1
    return widths


def _cell(text: str, width: int, last: bool) -> list[str]:
    """A cell's lines; nothing stands right of the last column, so that a path there may be as long as it is."""
    return [line for one in text.split("\n") for line in _folded(one.split(), width, "", "", not last) or [""]]


def _folded(words: Sequence[str], width: int, indent: str, more: str, break_all: bool) -> list[str]:
    """Words in lines of at most so many cells, each begun with its indent."""
    lines: list[str] = []
    line, begun = indent, False
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        here = f"{line} {word}" if begun else line + word
        if cell_len(here) <= width or (not begun and not break_all and WHOLE.match(word)):
            line, begun = here, True
        elif begun:
            lines.append(line)
            line, begun = more, False
            waiting.append(word)
        else:
            fits = max(1, _fitting(word, width - cell_len(line)))
            line, begun = line + word[:fits], True
            if word[fits:]:
                waiting.append(word[fits:])
    return [*lines, line] if begun else lines


def _fitting(word: str, width: int) -> int:
    """How many of a word's characters fit."""
    for at, letter in enumerate(word):
        width -= cell_len(letter)
        if width < 0:
            return at
    return len(word)


def _aligned(text: str, width: int, right: bool) -> str:
    space = " " * max(0, width - cell_len(text))
    return space + text if right else text + space
