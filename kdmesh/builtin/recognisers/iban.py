"""International bank account numbers: ISO 13616-1, whose check digits are of ISO/IEC 7064 (mod 97-10)."""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern

SHORTEST, LONGEST = 15, 34


class Iban(ByPattern):
    """A country, two check digits, and 11 to 30 characters of the account, in one run or in groups of four."""

    kind = "IBAN"
    patterns = (
        re.compile(r"(?<!\w)[A-Z]{2}\d{2}[A-Z0-9]{11,30}(?!\w)", re.IGNORECASE),
        re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,4})?(?!\w)", re.IGNORECASE),
    )

    def is_one(self, found: str) -> bool:
        """By its length and check digits."""
        plain = found.replace(" ", "")
        if not SHORTEST <= len(plain) <= LONGEST:
            return False
        return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1
