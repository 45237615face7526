"""When a language model's hidden rows and its last layer cross between hosts, in place of its logits."""

from __future__ import annotations

LARGE = 2**24  # elements above which logits are not made as a whole


def crosses_hidden(rows: int, width: int, columns: int) -> bool:
    """Whether hidden rows ``[rows, width]`` and their layer cross in place of logits ``[rows, columns]``.

    They do where they are fewer numbers, and where logits are so many that nobody makes them as a whole: the reader
    then makes the same chunks wherever it lives.
    """
    return (rows + columns) * width < rows * columns or rows * columns > LARGE


def fewest(width: int, columns: int) -> int:
    """The fewest rows of which hidden rows and the layer cross."""
    large = LARGE // columns + 1
    return min(large, columns * width // (columns - width) + 1) if columns > width else large
