"""Dates with a day or a month: by numbers, as in ISO 8601, or with the month's English name.

A year alone is none: HIPAA's safe harbour lets it stand (45 CFR 164.514(b)(2)(i)(C)).
"""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern, digits

MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
DAY = r"(?:0?[1-9]|[12]\d|3[01])"


class Date(ByPattern):
    """2024-03-01, 3/1/2024, 01.03.24, 1 March 2024, March 1st, March 2024."""

    kind = "DATE"
    patterns = (
        re.compile(rf"(?<![\w/.-])\d{{4}}([-/.])(?:0?[1-9]|1[0-2])\1{DAY}(?![\w]|[/.-]\d)"),
        re.compile(rf"(?<![\w/.-]){DAY}([-/.]){DAY}\1(?:\d{{4}}|\d{{2}})(?![\w]|[/.-]\d)"),
        re.compile(rf"(?<!\w){DAY}(?:st|nd|rd|th)?(?: of)?[ -]{MONTH}(?:,?[ -]\d{{4}})?(?!\w)", re.IGNORECASE),
        re.compile(rf"(?<!\w){MONTH} {DAY}(?:st|nd|rd|th)?(?:,? \d{{4}})?(?![\w])", re.IGNORECASE),
        re.compile(rf"(?<!\w){MONTH},? (?:19|20)\d\d(?!\w)", re.IGNORECASE),
    )

    def is_one(self, found: str) -> bool:
        """Whether one of the first two numbers may be a month, where all is numbers."""
        if any(one.isalpha() for one in found):
            return True
        parts = [int(one) for one in re.split(r"[-/.]", found)]
        return len(parts) == 3 and (parts[0] > 31 or min(parts[:2]) <= 12) and bool(digits(found))
