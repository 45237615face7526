"""International bank account numbers: ISO 13616-1, whose check digits are of ISO/IEC 7064 (mod 97-10)."""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern

SHORTEST, LONGEST = 15, 34
SIGN = "[A-Za-z0-9]"  # written out: where case is ignored, A-Z takes letters beyond ASCII too, which are no digits


class Iban(ByPattern):
    """A country, two check digits, and 11 to 30 characters of the account, in one run or in groups of four."""

    kind = "IBAN"
    grouped = 4
    patterns = (
        re.compile(rf"(?<!\w)[A-Za-z]{{2}}\d{{2}}{SIGN}{{11,30}}(?!\w)"),
        re.compile(rf"(?<!\w)[A-Za-z]{{2}}\d{{2}}(?: {SIGN}{{4}}){{2,7}}(?: {SIGN}{{1,4}})?(?!\w)"),
    )

    def is_one(self, found: str) -> bool:
        """By its length and check digits."""
        plain = found.replace(" ", "")
        if not SHORTEST <= len(plain) <= LONGEST:
            return False
        return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1
