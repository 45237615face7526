"""Compare the account with the library dp-accounting, in an environment of its own: `make accounts`.

It does not install beside kdmesh's pins. With --write its answers are written to dp_accounting.json, which the fast
tests read.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import dp_accounting
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from kdmesh.privacy.accounting import Gaussian, epsilon, exact_epsilon, mu, rdp

FILE = Path(__file__).with_name("dp_accounting.json")
ROOT2 = math.sqrt(2)
CASES = [
    [[sensitivity, sigma, count]]
    for sensitivity in (1.0, ROOT2)
    for sigma in (0.7, 2.0, 13.37, 40.0, 150.0)
    for count in (1, 50, 1000)
] + [
    [[1.0, 150.0, 3000], [ROOT2, 40.0, 1200]],  # Confident-GNMax
    [[ROOT2, 3.0, 10], [ROOT2, 5.0, 20], [1.0, 2.0, 7]],
]
DELTAS = (1e-3, 1e-5, 1e-9)


def asked(accountant: RdpAccountant | PLDAccountant, case: list[list[float]], delta: float) -> float:
    for sensitivity, sigma, count in case:
        accountant.compose(dp_accounting.GaussianDpEvent(sigma / sensitivity), int(count))
    return float(accountant.get_epsilon(delta))


def main() -> int:
    rows, worst = [], 0.0
    for case in CASES:
        answers = [Gaussian(sensitivity, sigma, int(count)) for sensitivity, sigma, count in case]
        for delta in DELTAS:
            theirs = asked(RdpAccountant(), case, delta)
            ours = epsilon(rdp(answers), delta)
            rows.append({"answers": case, "delta": delta, "rdp": theirs})
            worst = max(worst, abs(ours - theirs) / theirs)
        if mu(answers) < 8:  # discretised: it needs minutes for what nobody would ask
            rows[-2]["pld"] = theirs = asked(PLDAccountant(), case, DELTAS[1])
            print(f"{case}: exact {exact_epsilon(mu(answers), DELTAS[1]):.10f}, PLD of dp-accounting {theirs:.10f}")
    print(f"{len(rows)} epsilons by RDP: the largest relative difference is {worst:.3g}")
    if "--write" in sys.argv:
        source = "dp-accounting 0.6.0, get_epsilon of RdpAccountant and PLDAccountant; by against_dp_accounting.py"
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        FILE.write_text(f'{{"source": {json.dumps(source)}, "answers": [\n{lines}\n]}}\n', encoding="utf-8")
    return 0 if worst < 1e-15 else 1


if __name__ == "__main__":
    sys.exit(main())
