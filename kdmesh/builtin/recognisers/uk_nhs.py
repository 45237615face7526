"""Numbers of patients of the National Health Service: ten digits, the last a check digit modulo 11.

NHS Data Dictionary, "NHS NUMBER": the first nine are weighted 10 to 2, and 11 less the rest modulo 11 is the last.
"""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern, digits


class UkNhs(ByPattern):
    """Ten digits, in one run or as 3 3 4, whose check digit is right: by chance one in eleven has it."""

    kind = "UK_NHS"
    patterns = (re.compile(r"(?<![\w.+-])\d{3}([ -]?)\d{3}\1\d{4}(?![\w]|[.-]\d)"),)

    def is_one(self, found: str) -> bool:
        """By its check digit; a number of one digit alone is nobody's."""
        numbers = digits(found)
        rest = sum(weight * one for weight, one in zip(range(10, 1, -1), numbers, strict=False)) % 11
        return len(set(numbers)) > 1 and (11 - rest) % 11 == numbers[-1]
