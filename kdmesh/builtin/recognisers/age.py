"""Ages over 89, which HIPAA's safe harbour names beside dates (45 CFR 164.514(b)(2)(i)(C))."""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern

OVER = r"(?:9\d|1[0-2]\d)"


class AgeOver89(ByPattern):
    """Ages from 90 to 129 where words around them say that they are: 92 years old, 94-year-old, aged 91, age: 101."""

    kind = "AGE_OVER_89"
    patterns = (
        re.compile(rf"(?<![\w.,])(?P<one>{OVER})(?=[ -]?(?:years?|yrs?|y/?o)\b)", re.IGNORECASE),
        re.compile(rf"\b(?:aged?|years? of age)(?: of)?:? (?P<one>{OVER})(?![\w]|[.,]\d)", re.IGNORECASE),
    )
