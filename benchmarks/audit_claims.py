"""Claims on leak audits: planted secrets in a tiny language model, and members among digits.

Run ``python benchmarks/audit_claims.py [--only TEXT] [--seeds N]``. A miss is printed as MISS and the exit code stays
0: what is measured is a finding, not a test.
"""

from __future__ import annotations

import sys

from digits_claims import Claim, Threshold, judged, parser  # sets the number of threads, before torch

from claims import leaks, planted  # isort: skip

# Written down on 2026-12-01, before any of these experiments had been run.
SECRETS = (
    Claim(
        "planted secrets are learned and said; neither by a student of filtered texts, nor by one of other texts",
        planted.figures,
        5,
        (
            Threshold("unfiltered", least=5, digits=2),
            Threshold("unfiltered, said", least=50),
            Threshold("filtered", most=2, digits=2),
            Threshold("filtered, said", most=0),
            Threshold("unfiltered", "filtered", clear=True, digits=2),
            Threshold("student, same texts", least=4, digits=2),
            Threshold("student, filtered texts", most=2, digits=2),
            Threshold("student, filtered texts, said", most=0),
            Threshold("student, other texts", most=2, digits=2),
            Threshold("student, other texts, said", most=0),
            Threshold("unfiltered, out", most=2, digits=2),
        ),
    ),
)
AFTERWARDS = Claim(
    "afterwards, no claim: why a student of texts without secrets is exposed", planted.afterwards, 5, first=100
)
MEMBERS = (
    Claim(
        "an overfitted teacher tells of its samples, a private one does not; soft labels pass more on than hard ones",
        leaks.figures,
        5,
        (
            Threshold("overfitted teacher", least=5),
            Threshold("private teacher", most=3),
            Threshold("overfitted teacher", "private teacher", clear=True),
            Threshold("overfitted teacher", "overfitted soft student", clear=True),
            Threshold("overfitted soft student", "overfitted hard student", clear=True),
            Threshold("overfitted hard student", most=3),
            Threshold("private soft student", most=3),
            Threshold("private hard student", most=3),
            Threshold("overfitted teacher", "overfitted teacher, by loss", clear=True),
        ),
    ),
)


def main() -> int:
    """Run the claims and print their figures and verdicts."""
    args = parser(str(__doc__)).parse_args()
    judged((*SECRETS, AFTERWARDS), args, "secrets", "Bits of exposure, and percent of secrets that are said", 2)
    return judged(MEMBERS, args, "digits", "Percent of members found at 1% false positives")


if __name__ == "__main__":
    sys.exit(main())
