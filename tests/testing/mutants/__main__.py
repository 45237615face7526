"""Print how many mutants the kit catches: ``python -m tests.testing.mutants [KIND ...] [--show]``."""

from __future__ import annotations

import argparse
import sys

from .mutant import Mutant
from .originals import ORIGINALS
from .running import Verdict, judged
from .table import KINDS


def main(arguments: list[str]) -> int:
    """Run them, and print a line for each kind; with ``--show`` also each mutant and what caught it."""
    parser = argparse.ArgumentParser(prog="python -m tests.testing.mutants", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="a part of the name of a kind; all by default")
    parser.add_argument("--show", action="store_true", help="also each mutant, and the check that caught it")
    asked = parser.parse_args(arguments)
    kinds = {kind: rows for kind, rows in KINDS.items() if not asked.kinds or any(part in kind for part in asked.kinds)}
    names = dict.fromkeys(mutant.of for rows in kinds.values() for mutant in rows)
    right = dict(zip(names, judged([Mutant(name, "as it is") for name in names], every=True), strict=True))
    for one in right.values():
        if asked.show and one.caught:
            print(f"false alarm | {one.mutant.of} | {one.check} {one.words}", flush=True)
    found = iter(judged([mutant for rows in kinds.values() for mutant in rows]))
    wrong = {kind: [next(found) for _ in rows] for kind, rows in kinds.items()}
    for kind, verdicts in wrong.items() if asked.show else ():
        for one in verdicts:
            said = f"{one.check} {one.words[:100]}" if one.caught else "NOT CAUGHT"
            print(f"{kind} | {one.mutant.of}: {one.mutant.says} | {said}")
    print("\n".join(lines(wrong, right)))
    return 0


def lines(wrong: dict[str, list[Verdict]], right: dict[str, Verdict]) -> list[str]:
    """The table: of each kind how many mutants there are and were caught, and of how many originals it was said."""
    rows = [("kind", "mutants", "caught", "originals", "false alarms")]
    for kind, verdicts in wrong.items():
        own = {one.mutant.of for one in verdicts}
        counts = len(verdicts), sum(one.caught for one in verdicts), len(own), sum(right[name].caught for name in own)
        rows.append((kind, *map(str, counts)))
    every = [one for verdicts in wrong.values() for one in verdicts]
    caught = sum(one.caught for one in every)
    share = f"{caught} ({100 * caught / len(every):.0f}%)"
    rows.append(("all", str(len(every)), share, str(len(right)), str(sum(one.caught for one in right.values()))))
    return [f"| {' | '.join(row)} |" for row in (rows[0], ("---", *["---:"] * 4), *rows[1:])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

__all__ = ["ORIGINALS", "main"]
