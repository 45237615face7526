"""Claims on private training: accuracy on digits at epsilon 1, 3 and 8, and without noise.

Run ``python benchmarks/private_training.py [--seeds N]``. A miss is printed as MISS and the exit code stays 0: what is
measured is a finding, not a test. Test data are measured on and never chosen by.
"""

from __future__ import annotations

import sys

from digits_claims import Claim, Threshold, tried  # sets the number of threads, before torch

from claims import private_training  # isort: skip

# Written down on 2026-12-01, before any of these experiments had been run. Percentages and points of test accuracy.
CLAIMS = (
    Claim(
        "a model of a thousand private digits is of use at each epsilon, and teaches one elsewhere as well as it can",
        private_training.figures,
        5,
        (
            Threshold("without noise", least=95),
            Threshold("epsilon 8", least=85),
            Threshold("epsilon 3", least=75),
            Threshold("epsilon 1", least=50),
            Threshold("without noise", "epsilon 8", most=10),
            Threshold("epsilon 8", "epsilon 3", clear=True),
            Threshold("epsilon 3", "epsilon 1", clear=True),
            Threshold("epsilon 8", "student of epsilon 8", most=3),
            Threshold("epsilon 1", "student of epsilon 1", most=3),
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(tried(CLAIMS, str(__doc__)))
