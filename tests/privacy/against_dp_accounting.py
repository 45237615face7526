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

from kdmesh.privacy.accounting import ORDERS, Gaussian, epsilon, exact_epsilon, mu, rdp

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
SAMPLED = [  # of DP-SGD: a fourth number, with what probability a sample takes part
    [[1.0, 1.0, 1000, 0.01]],
    [[1.0, 0.6, 200, 0.05]],
    [[1.0, 2.0, 5000, 0.003]],
    [[1.0, 3.0, 300, 0.1]],
    [[1.0, 1.1, 2000, 0.02], [1.0, 40.0, 500]],
]
DELTAS = (1e-3, 1e-5, 1e-9)


def asked(accountant: RdpAccountant | PLDAccountant, case: list[list[float]], delta: float) -> float:
    for sensitivity, sigma, count, *rate in case:
        event = dp_accounting.GaussianDpEvent(sigma / sensitivity)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(*rate, event) if rate else event, int(count))
    return float(accountant.get_epsilon(delta))


def curves(case: list[list[float]]) -> list[float | None]:
    """Its divergences at each order; None of those at which a series of its does not converge, which it leaves out."""
    accountant = RdpAccountant()
    asked(accountant, case, DELTAS[1])
    return [float(one) if math.isfinite(one) else None for one in accountant._rdp]


def main() -> int:
    rows, worst = [], [0.0, 0.0]
    for case in CASES + SAMPLED:
        answers = [Gaussian(sensitivity, sigma, int(count), *rate) for sensitivity, sigma, count, *rate in case]
        for delta in DELTAS:
            theirs = asked(RdpAccountant(), case, delta)
            ours = epsilon(rdp(answers), delta)
            rows.append({"answers": case, "delta": delta, "rdp": theirs})
            by_chance = case in SAMPLED
            worst[by_chance] = max(worst[by_chance], abs(ours - theirs) / theirs)
        if by_chance:
            rows[-2]["pld"] = theirs = asked(PLDAccountant(), case, DELTAS[1])
            curve, known = curves(case), rdp(answers)
            rows[-2]["curve"] = curve
            apart = {n: (a - b) / b for n, a, b in zip(ORDERS, known, curve, strict=True) if b is not None}
            whole = max(abs(one) for order, one in apart.items() if order == int(order))
            others = [min(apart.values()), max(apart.values())]
            print(f"whole orders apart by {whole:.3g}; ours above theirs by {others[0]:.3g} to {others[1]:.3g}")
            print(f"{case}: {epsilon(rdp(answers), DELTAS[1]):.10f} by RDP, PLD of dp-accounting {theirs:.10f}")
        elif mu(answers) < 8:  # discretised: it needs minutes for what nobody would ask
            rows[-2]["pld"] = theirs = asked(PLDAccountant(), case, DELTAS[1])
            print(f"{case}: exact {exact_epsilon(mu(answers), DELTAS[1]):.10f}, PLD of dp-accounting {theirs:.10f}")
    print(f"{len(rows)} epsilons by RDP: apart by {worst[0]:.3g} at most, of samples drawn by {worst[1]:.3g}")
    if "--write" in sys.argv:
        source = "dp-accounting 0.6.0, get_epsilon of RdpAccountant and PLDAccountant; by against_dp_accounting.py"
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        FILE.write_text(f'{{"source": {json.dumps(source)}, "answers": [\n{lines}\n]}}\n', encoding="utf-8")
    return 0 if worst[0] < 1e-15 and worst[1] < 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
