"""Vehicle identification numbers: ISO 3779, 17 characters, with the check digit of 49 CFR 565.15."""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern

WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
VALUES = {**{str(one): one for one in range(10)}, **dict(zip("ABCDEFGH", range(1, 9), strict=True)),
          **dict(zip("JKLMN", range(1, 6), strict=True)), "P": 7, "R": 9,
          **dict(zip("STUVWXYZ", range(2, 10), strict=True))}  # fmt: skip


class Vin(ByPattern):
    """17 letters and digits without I, O and Q, whose ninth is right: as of North America, others need have none."""

    kind = "VIN"
    patterns = (re.compile(r"(?<!\w)(?=[A-Z0-9]*\d)(?=[0-9]*[A-Z])[A-HJ-NPR-Z0-9]{17}(?!\w)"),)

    def is_one(self, found: str) -> bool:
        """By its check digit."""
        rest = sum(weight * VALUES[one] for weight, one in zip(WEIGHTS, found, strict=True)) % 11
        return found[8] == ("X" if rest == 10 else str(rest))
