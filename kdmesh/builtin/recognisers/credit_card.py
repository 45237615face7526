"""Numbers of payment cards: ISO/IEC 7812-1, by the issuer's first digits, the length, and the check digit."""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern, digits, luhn

ISSUED = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11,16}|6(?:011|4[4-9]\d|5\d\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12,15}"
    r"|(?:5[06-9]|6\d)\d{10,17}|62\d{14,17}|1800\d{11}|2131\d{11}"
)


class CreditCard(ByPattern):
    """Numbers of 12 to 19 digits, in one run or in groups, whose check digit is right."""

    kind = "CREDIT_CARD"
    grouped = 4
    patterns = (re.compile(r"(?<![\w.-])\d(?:[ -]?\d){11,18}(?![\w]|[.-]\d)"),)

    def is_one(self, found: str) -> bool:
        """By issuer and check digit."""
        numbers = digits(found)
        return ISSUED.fullmatch("".join(map(str, numbers))) is not None and luhn(numbers)
