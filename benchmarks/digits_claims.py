"""The claims on digits: paired over seeds, against thresholds that were written down before the first run.

Run ``python benchmarks/digits_claims.py [--only TEXT] [--seeds N]``. A miss is printed as MISS and the exit code stays
0: what is measured is a finding, not a test. Test data are measured on and never chosen by.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: matrices this small are fastest on one thread

from claims import afterwards, attack, ensemble, rounds, soft_targets

from kdmesh.statistics import interval, paired

Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Threshold:
    """A bound, in points, on the mean of figure ``a``, or of ``a - b`` paired by seed.

    ``least``, ``most``: bounds on the mean. ``clear``: its 95% interval lies above 0. ``digits`` are printed.
    """

    a: str
    b: str | None = None
    least: float | None = None
    most: float | None = None
    clear: bool = False
    digits: int = 1

    def line(self, figures: Figures) -> str:
        """The measured value beside the bound, and whether it is met."""
        values = figures[self.a]
        found = paired(values, figures[self.b] if self.b else [0.0] * len(values))
        mean, half = found["mean"], found["half_width"] or 0.0
        met = [
            self.least is None or mean >= self.least,
            self.most is None or mean <= self.most,
            not self.clear or mean - half > 0,
        ]
        bounds = [
            f"at least {self.least:g}" if self.least is not None else "",
            f"at most {self.most:g}" if self.most is not None else "",
            "interval above 0" if self.clear else "",
        ]
        wins = f", larger in {found['wins']}/{found['n']}" if self.b else ""
        what = f"{self.a} minus {self.b}" if self.b else self.a
        bound = ", ".join(filter(None, bounds))
        shown = f"{mean:+.{self.digits}f} ± {half:.{self.digits}f}"
        return f"  {'pass' if all(met) else 'MISS'}  {what}: {shown}{wins}  [{bound}]"


@dataclass(frozen=True)
class Claim:
    """A sentence, the experiment that tries it, how many seeds from ``first`` on, and its thresholds."""

    text: str
    figures: Callable[[int], dict[str, float]]
    seeds: int
    thresholds: tuple[Threshold, ...] = ()
    first: int = 0


def attacked(kind: str) -> tuple[Threshold, ...]:
    """The mean falls by 20 points and more from its own clean accuracy, median and geometric median by at most 10."""
    return tuple(
        Threshold(f"{who}{rule}, clean", f"{who}{rule}, {kind}", least=20 if rule == "mean" else None, most=bound)
        for who in ("", "student of ")
        for rule, bound in (("mean", None), ("median", 10), ("geometric median", 10))
    )


# Written down on 2026-11-23, before any of these experiments had been run. Percentages and points of test accuracy.
CLAIMS = (
    Claim(
        "soft targets at T=10 beat hard labels on 50 samples; a class never seen is learned from soft targets",
        soft_targets.figures,
        10,
        (
            Threshold("few-soft-10", "few-hard", clear=True),
            Threshold("rest-soft-4, class 3", least=50),
            Threshold("rest-hard, class 3", most=0),
        ),
    ),
    Claim(
        "an ensemble beats its members",
        ensemble.figures,
        20,
        (Threshold("ensemble", "members, mean", clear=True), Threshold("ensemble", "best by validation", clear=True)),
    ),
    Claim(
        "students that own three classes each are lifted by ten points and more through rounds of consensus",
        rounds.figures,
        10,
        (Threshold("parties", "alone", least=10), Threshold("parties", "alone, all updates", least=10)),
    ),
    Claim(
        "with 4 of 10 members sending the least likely class, median and geometric median hold where the mean falls",
        attack.figures,
        10,
        (*attacked("own"), *attacked("knowing")),
    ),
)
AFTERWARDS = Claim("afterwards, no claim: why thresholds were missed", afterwards.figures, 10, first=100)


def main() -> int:
    """Run the claims and print their figures and verdicts."""
    return tried((*CLAIMS, AFTERWARDS), str(__doc__))


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every command of claims has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--only", default="", help="only claims whose sentence contains this")
    made.add_argument("--seeds", type=int, help="so many seeds instead of each claim's own number")
    return made


def tried(claims: Sequence[Claim], description: str) -> int:
    """Run claims as the command line asks, and print their figures and verdicts."""
    return judged(claims, parser(description).parse_args(), "digits")


def judged(
    claims: Sequence[Claim],
    args: argparse.Namespace,
    data: str,
    what: str = "Test accuracy in percent",
    digits: int = 1,
) -> int:
    """Run claims on some data, by the options of :func:`parser`; ``what`` is measured, and printed with ``digits``."""
    print(f"Claims on {data}. {what}, mean and 95% t interval over seeds; differences paired by seed.")
    begun = perf_counter()
    for claim in (claim for claim in claims if args.only in claim.text):
        started = perf_counter()
        seeds = range(claim.first, claim.first + (args.seeds or claim.seeds))
        runs = [claim.figures(seed) for seed in seeds]
        figures = {name: [run[name] for run in runs] for name in runs[0]}
        print(f"\n{claim.text}\n  seeds {seeds[0]} .. {seeds[-1]}, {perf_counter() - started:.0f} s")
        for name, values in figures.items():
            mean, half = interval(values)
            print(f"        {name}: {mean:.{digits}f} ± {half or 0:.{digits}f}")
        for threshold in claim.thresholds:
            print(threshold.line(figures), flush=True)
    print(f"\n{perf_counter() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
