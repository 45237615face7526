"""What the clauses that were read say of a student, for a purpose, and what whoever gives it to others must do.

No verdict of law: it says what stands in which text, and where nothing was read. Whether a student is a derivative of
what it learned from is for the law to say; here every clause on derivatives counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from kdmesh.licences.clauses import ANSWERS, GIVEN
from kdmesh.licences.names import alternatives
from kdmesh.licences.table import TERMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.licences.clauses import Answer, Clause, Purpose, Terms
    from kdmesh.licences.names import Named


@dataclass(frozen=True)
class Student:
    """Who learns. ``family``: the licences of the weights that it began with."""

    language_model: bool
    family: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Source:
    """What it learns from, or began with: a teacher, an endpoint, a data set, weights."""

    name: str
    kind: str
    licence: Named


@dataclass(frozen=True)
class Cited:
    """A clause, and whose it is. ``answer``: what it says of the purpose; of a duty, `clear`."""

    source: str
    terms: Terms
    clause: Clause
    answer: Answer

    def told(self) -> str:
        """Its words, and where they stand."""
        return f"“{self.clause.quote}” ({self.terms.cited(self.clause)})"


@dataclass(frozen=True)
class Finding:
    """What is known of one source. ``unread``: licences of which no clause was read."""

    source: Source
    answer: Answer
    cited: tuple[Cited, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def duties(self) -> tuple[Cited, ...]:
        """What whoever gives the student to others must do."""
        return tuple(one for one in self.cited if one.clause.duty)

    @property
    def reasons(self) -> tuple[Cited, ...]:
        """The clauses from which its answer is; of `clear` the grant, where one was read."""
        return tuple(one for one in self.cited if not one.clause.duty and one.answer == self.answer)


@dataclass(frozen=True)
class Conflict:
    """Two duties that cannot both be met."""

    one: Cited
    other: Cited
    why: str


@dataclass(frozen=True)
class Outcome:
    """What is known of a student by all that it learns from."""

    purpose: Purpose
    findings: tuple[Finding, ...]
    conflicts: tuple[Conflict, ...]

    @property
    def answer(self) -> Answer:
        """The one that lets least; two duties in conflict are against giving it to anyone."""
        found = [one.answer for one in self.findings]
        if self.conflicts and self.purpose in GIVEN:
            found.append("against")
        return max(found, key=ANSWERS.index, default="clear")

    @property
    def duties(self) -> tuple[Cited, ...]:
        """What whoever gives it to others must do, each clause once."""
        return tuple({(one.terms.key, one.clause): one for f in self.findings for one in f.duties}.values())

    @property
    def begins(self) -> str:
        """How its name must begin, "" if no clause says so; of several, the longest."""
        return max((one.clause.begins for one in self.duties), key=len, default="")

    @property
    def shows(self) -> tuple[str, ...]:
        """What must be shown or passed on with it, each once."""
        return tuple(dict.fromkeys(one.clause.shows for one in self.duties if one.clause.shows))

    @property
    def licence(self) -> str:
        """The licence that it must have, where a clause asks for the same; "" where none does, or several."""
        found = {one.terms.key for one in self.duties if one.clause.kind == "share-alike"}
        return found.pop() if len(found) == 1 else ""


def judge(student: Student, sources: Sequence[Source], purpose: Purpose) -> Outcome:
    """What is known of a student that learns from all of these."""
    findings = tuple(_finding(student, one, purpose) for one in sources)
    duties = tuple({(one.terms.key, one.clause): one for f in findings for one in f.duties}.values())
    pairs = ((one, other, _why(one, other)) for one, other in combinations(duties, 2))
    return Outcome(purpose, findings, tuple(Conflict(one, other, why) for one, other, why in pairs if why))


def _finding(student: Student, source: Source, purpose: Purpose) -> Finding:
    """Of licences to choose from, the one that lets most, the first of equals."""
    if not source.licence.expression:
        return Finding(source, "unknown")
    ways = [_way(student, source, keys, purpose) for keys in alternatives(source.licence.expression)]
    return min(ways, key=lambda one: ANSWERS.index(one.answer))


def _way(student: Student, source: Source, keys: Sequence[str], purpose: Purpose) -> Finding:
    """Of licences that hold together, the one that lets least."""
    cited = tuple(
        Cited(source.name, terms, clause, _answer(student, terms, clause, purpose))
        for key in keys
        if (terms := TERMS.get(key)) is not None
        for clause in terms.clauses
    )
    unread = tuple(key for key in keys if key not in TERMS)
    answers: list[Answer] = [one.answer for one in cited] + (["unknown"] if unread else [])
    return Finding(source, max(answers, key=ANSWERS.index), cited, unread)


def _answer(student: Student, terms: Terms, clause: Clause, purpose: Purpose) -> Answer:
    answer = clause.answers.get(purpose, "clear")
    if clause.unless == "family" and terms.key in student.family:
        return "clear"
    if clause.unless == "kept classifier" and not student.language_model and purpose not in GIVEN:
        return "clear"
    if answer == "against" and clause.of == "language models" and not student.language_model:
        return "depends"
    return answer


def _why(one: Cited, other: Cited) -> str:
    """Why two duties cannot both be met; "" where they can, as far as is known here."""
    if one.terms.key == other.terms.key:
        return ""
    kinds = {one.clause.kind, other.clause.kind}
    if kinds == {"share-alike"}:
        return f"both ask for the same licence: {one.terms.key} and {other.terms.key}"
    if kinds == {"share-alike", "pass on"}:
        alike, passed = (one, other) if one.clause.kind == "share-alike" else (other, one)
        return f"{alike.terms.key} lets no further terms be put on it, and {passed.terms.key} must be passed on with it"
    names = [one.clause.begins, other.clause.begins]
    if all(names) and not names[0].startswith(names[1]) and not names[1].startswith(names[0]):
        return f"its name cannot begin with {names[0]!r} and with {names[1]!r}"
    return ""
