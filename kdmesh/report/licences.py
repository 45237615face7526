"""Licences of what agents learn from, as a table; the clauses that decide, shortened, and what is owed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.licences.clauses import GIVEN, brief
from kdmesh.report import layout
from kdmesh.report.plan_data import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.licences.judging import Cited, Outcome, Source

MOST = 40  # rows
SAYS = {"clear": "not against it", "depends": "depends", "unknown": "unknown", "against": "against it"}


def judged(outcomes: Mapping[str, Outcome], where: Mapping[Source, str], own: Iterable[str], width: int) -> list[str]:
    """What agents learn from, with what its clauses say for the purpose; nothing where nobody learns.

    ``where``: from where each licence is known; ``own``: what is declared one's own.
    """
    if not outcomes:
        return []
    purpose = next(iter(outcomes.values())).purpose
    rows: dict[tuple[str, ...], list[str]] = {}
    reasons: dict[str, Cited] = {}
    for name, outcome in outcomes.items():
        for one in outcome.findings:
            source = one.source
            licence = source.licence.expression or source.licence.written or "not stated"
            key = (source.name, source.kind, licence, where.get(source, ""), SAYS[one.answer])
            rows.setdefault(key, []).append(name)
            if one.answer in ("against", "depends"):
                reasons |= {f"{source.name}: {_said(cited)}": cited for cited in one.reasons}
    lines = [f"licences, for {purpose}: what clauses say that were read (no verdict of law)"]
    heads = ("learned from", "as", "licence", "from", "says")
    shown = [[*key] for key in rows][:MOST]
    lines += [f"  {line}" for line in layout.table([[*heads], *shown], width - 2, heads=1)] if shown else []
    lines += [f"  and {len(rows) - MOST} more"] if len(rows) > MOST else []
    lines += [f"  own: {listed(names)}"] if (names := list(dict.fromkeys(own))) else []
    lines += [f"  {one}" for one in reasons]
    for owed, names in _owed(outcomes, purpose in GIVEN).items():
        lines.append(f"  {listed(names)}: {owed}")
    return lines


def _owed(outcomes: Mapping[str, Outcome], given: bool) -> dict[str, list[str]]:
    """What is owed by whoever gives a student to others, with the students of whom it is."""
    found: dict[str, list[str]] = {}
    for name, outcome in outcomes.items():
        if given and (owed := duties(outcome)):
            found.setdefault(f"who gives it to others {'; '.join(owed)}", []).append(name)
    return found


def duties(outcome: Outcome) -> list[str]:
    """What whoever gives a student to others does, each in a few words."""
    found = [f"begins its name with “{outcome.begins}”"] if outcome.begins else []
    found += [f"shows: {one}" for one in outcome.shows]
    return [*found, *([f"licenses it as {outcome.licence}"] if outcome.licence else [])]


def _said(one: Cited) -> str:
    return f"“{brief(one.clause.quote)}” ({one.terms.cited(one.clause)})"
