"""Postal codes of the United States that follow a state's abbreviation: USPS Publication 28, Appendix B."""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern

STATES = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|G[AU]|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|T[NX]|UT"
    "|V[AIT]|W[AIVY]"
)


class UsZip(ByPattern):
    """Five digits, perhaps with four more; without a state before them five digits are any number."""

    kind = "US_ZIP"
    patterns = (re.compile(rf"(?<!\w)(?:{STATES}),? (?P<one>\d{{5}}(?:-\d{{4}})?)(?![\w]|[.-]\d)"),)
