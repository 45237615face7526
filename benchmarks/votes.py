"""Claims on noisy votes of 250 teachers: what a student learns of them at epsilon 1, 4 and 8, on Fashion-MNIST.

Run ``python benchmarks/votes.py FOLDER [--seeds N]``: the folder of its four files, from zalandoresearch/fashion-mnist
on GitHub. A miss is printed as MISS and the exit code stays 0: what is measured is a finding, not a test. Test data are
measured on and never chosen by.
"""

from __future__ import annotations

import sys

from digits_claims import Claim, Threshold, judged, parser  # sets the number of threads, before torch

from claims import votes  # isort: skip


def claims(folder: str) -> tuple[Claim, ...]:
    """Written down on 2026-12-01, before any of these experiments had been run. Points of test accuracy."""
    thresholds = (
        Threshold("epsilon 8", "200 labels", clear=True),
        Threshold("epsilon 4", "200 labels", clear=True),
        Threshold("epsilon 1", least=50),
        Threshold("without noise", "epsilon 8", most=3),
        Threshold("epsilon 8", "epsilon 1", clear=True),
    )
    text = "a student of 250 teachers who vote with noise is better than one of a few labels"
    return (Claim(text, lambda seed: votes.figures(seed, folder), 3, thresholds),)


def main() -> int:
    """Run the claims, and print their figures and verdicts."""
    options = parser(str(__doc__))
    options.add_argument("folder", help="of the four files of Fashion-MNIST")
    args = options.parse_args()
    return judged(claims(args.folder), args, "Fashion-MNIST")


if __name__ == "__main__":
    sys.exit(main())
