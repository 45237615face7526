"""Telephone and fax numbers, in the ways that they are written: ITU-T E.123 and E.164, and those of North America.

A number is a candidate only with a country's code, or parted as such numbers are: other runs of digits are amounts,
dates and identifiers more often than not. There is no check digit, so that a number of another kind may be taken.
"""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern, digits

GAP = r"[ .\-/\u00a0]?"
EXTENSION = r"(?:\s?(?:ext\.?|x)\s?\d{1,6})?"
AREA = rf"(?:\([2-9]\d\d\){GAP}|[2-9]\d\d[ .-])"


class Phone(ByPattern):
    """Numbers of 7 to 15 digits: international, North American, and of a trunk prefix 0 with gaps."""

    kind = "PHONE"
    patterns = (
        re.compile(
            rf"(?<![\w+])(?:\+|00)[1-9]\d{{0,2}}{GAP}(?:\(\d{{1,5}}\){GAP})?\d{{1,5}}(?:{GAP}\d{{2,5}}){{1,5}}{EXTENSION}(?!\w)"
        ),
        re.compile(rf"(?<![\w.+-])(?:1[ .-])?{AREA}\d{{3}}[ .-]?\d{{4}}{EXTENSION}(?![\w]|[.-]\d)"),
        re.compile(r"(?<![\w.+/-])(?:\(0\d{1,4}\) ?|0\d{1,4}[ /-])\d{2,8}(?:[ -]\d{2,5}){0,3}(?![\w]|[.-]\d)"),
    )

    def is_one(self, found: str) -> bool:
        """By how many digits there are, an extension's not counted."""
        return 7 <= len(digits(re.split(r"ext|x", found)[0])) <= 15 + 2 * found.startswith("00")
