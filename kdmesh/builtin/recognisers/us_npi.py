"""National provider identifiers of the United States: 45 CFR 162.406, ten digits.

The last one is a check digit, of the number with 80840 before it (Luhn's, ISO/IEC 7812-1).
"""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern, digits, luhn

PREFIX = [8, 0, 8, 4, 0]


class UsNpi(ByPattern):
    """Ten digits that begin with 1 or 2, of which one in ten has the right check digit by chance."""

    kind = "US_NPI"
    patterns = (re.compile(r"(?<![\w.-])[12]\d{9}(?![\w]|[.-]\d)"),)

    def is_one(self, found: str) -> bool:
        """By its check digit."""
        return luhn([*PREFIX, *digits(found)])
