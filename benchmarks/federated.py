"""Claims on parties that learn from one another: digits, unequal by class, honest and with liars among them.

Run ``python benchmarks/federated.py [--seeds N]``. A miss is printed as MISS and the exit code stays 0: what is
measured is a finding, not a test. Test data are measured on and never chosen by.
"""

from __future__ import annotations

import sys

from digits_claims import Claim, Threshold, tried  # sets the number of threads, before torch

from claims import federated  # isort: skip

ROBUST = [name for name in federated.RULES if name != "mean"]

# Written down on 2026-11-30, before any of these experiments had been run. Percentages and points of test accuracy.
CLAIMS = (
    Claim(
        "parties of unequal classes gain from one another, and most of what pooling their samples would give",
        federated.figures,
        10,
        (
            Threshold("FedMD", "alone", least=10, clear=True),
            Threshold("one-shot", "alone", least=10, clear=True),
            Threshold("FedAvg", "alone", least=10, clear=True),
            Threshold("FedDF", "FedAvg", clear=True),  # published figures on Fashion-MNIST say the opposite
            Threshold("pooled", "FedMD", most=10),
            Threshold("pooled", "FedDF", most=10),
            Threshold("FedMD", "mean, attacked", least=10, clear=True),
            *(Threshold("FedMD", f"{rule}, attacked", most=5) for rule in ROBUST),
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(tried(CLAIMS, str(__doc__)))
