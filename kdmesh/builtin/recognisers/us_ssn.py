"""Social security numbers of the United States: those that the Social Security Administration may have given.

Parted as 123-45-6789 or with blanks; a run of nine digits is too many other things. Area 000, 666 and 900 to 999, group
00 and serial 0000 are never given (SSA, "Social Security Number Randomization").
"""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern


class UsSsn(ByPattern):
    """Three, two and four digits with one separator throughout."""

    kind = "US_SSN"
    patterns = (re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}([ -])(?!00)\d{2}\1(?!0000)\d{4}(?![\w]|[.-]\d)"),)
