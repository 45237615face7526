"""Licences of what agents learn from: declared, or on a card; and what their clauses say for a purpose.

It looks at files alone, so that `kdmesh plan` does it too. What an agent began with, and whoever taught it, comes along
through folders that kdmesh wrote: their ``licences`` say what is in their weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kdmesh.checks.licence_sources import begun, data_of
from kdmesh.checks.shared_base import WHY
from kdmesh.errors import MeshError
from kdmesh.graph.heard import authors, heard, reached
from kdmesh.graph.sources import below
from kdmesh.licences.clauses import GIVEN, PURPOSES, brief
from kdmesh.licences.judging import Student, judge
from kdmesh.licences.names import alternatives
from kdmesh.spec.parties import OWN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kdmesh.checks.licence_sources import Known
    from kdmesh.checks.shared_base import Shared
    from kdmesh.graph.plan import Plan
    from kdmesh.licences.clauses import Purpose
    from kdmesh.licences.judging import Cited, Finding, Outcome, Source
    from kdmesh.spec import MeshSpec


@dataclass
class Licences:
    """What is known of a mesh's licences.

    ``learned``: by agent that learns, all that it learns from;
    ``held``: by agent that does not, what it brings; ``texts``: by stream that agents write, what is in it; ``shared``:
    by student, teachers that begin with its weights; ``marks``: what whoever reads must know; ``notes``: what is worth
    saying.
    """

    policy: str = ""
    purpose: Purpose | None = None
    learned: dict[str, list[Known]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    texts: dict[str, list[Known]] = field(default_factory=dict)
    held: dict[str, list[Known]] = field(default_factory=dict)
    shared: dict[str, list[Shared]] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def asked(self) -> dict[str, Outcome]:
        """The outcomes, where the mesh asks for them."""
        return self.outcomes if self.purpose is not None else {}

    @cached_property
    def where(self) -> dict[Source, str]:
        """From where the licence of each source is known."""
        return {one.source: one.where for one in self.sources}

    @property
    def own(self) -> list[str]:
        """The names of what is declared one's own."""
        return [one.name for one in self.sources if one.own]

    @cached_property
    def sources(self) -> list[Known]:
        """All that anyone learns from, each once."""
        return list(dict.fromkeys(one for many in self.learned.values() for one in many))

    def record(self, agent: str) -> dict[str, Any]:
        """What an agent's folder says of it."""
        many, outcome = self.learned.get(agent, self.held.get(agent, [])), self.outcomes.get(agent)
        shared = [{"teacher": one.teacher, "base": one.base, "why": WHY} for one in self.shared.get(agent, ())]
        return {
            "policy": self.policy,
            "sources": [one.record() for one in many],
            **({"judged": _judged(outcome)} if outcome is not None else {}),
            **({"shared_base": shared} if shared else {}),
        }

    def manifest(self) -> dict[str, Any]:
        """What the run's manifest says: each source once, and by agent its sources' numbers."""
        all_of = {**self.held, **self.learned}
        every = dict.fromkeys([*self.sources, *(one for many in self.held.values() for one in many)])
        number = {one: place for place, one in enumerate(every)}
        answers = {name: {"answer": outcome.answer} for name, outcome in self.outcomes.items()}
        return {
            "policy": self.policy,
            "purpose": self.purpose,
            "sources": [one.record() for one in number],
            "agents": {
                name: {**answers.get(name, {}), "sources": [number[one] for one in many]}
                for name, many in all_of.items()
            },
            "streams": {name: [one.record() for one in many] for name, many in self.texts.items()},
            "shared_base": {name: [one._asdict() for one in many] for name, many in self.shared.items()},
        }


def _judged(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data: what is owed by whoever gives the student to others, and why."""
    return {
        "purpose": outcome.purpose,
        "answer": outcome.answer,
        "sources": [_found(one) for one in outcome.findings],
        "begins": outcome.begins,
        "shows": list(outcome.shows),
        "licence": outcome.licence,
        "conflicts": [{"why": one.why, "of": [one.one.source, one.other.source]} for one in outcome.conflicts],
    }


def _found(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.source.name,
        "kind": finding.source.kind,
        "licence": str(finding.source.licence),
        "answer": finding.answer,
        "unread": list(finding.unread),
        "clauses": [
            {
                "kind": one.clause.kind,
                "answer": one.answer,
                "quote": one.clause.quote,
                "at": one.terms.cited(one.clause),
            }
            for one in finding.cited
        ],
    }


def examine(plan: Plan, data: str | None = None, given: Collection[str] = ()) -> Licences:
    """Find what every agent that learns learns from, and judge it for the mesh's purpose.

    ``data``: what the data set itself states, None before it is read; ``given``: agents whose modules are from Python.
    MeshError, under the policy `strict`, for what is against the purpose or unknown, and for a licence that is declared
    of nothing.
    """
    spec = plan.spec.licences
    found = Licences(spec.policy if spec is not None else "", spec.purpose if spec is not None else None)
    by = heard(plan)
    began = {name: begun(plan, name, given, found.marks) for name in dict.fromkeys(plan.owner.values())}
    sets = data_of(plan, data, found.marks)
    for name, owner in plan.owner.items():
        moved = plan.spec.agents[owner]
        if owner in plan.trainable or moved.ema is not None or moved.update == "merged":
            found.learned[name] = _learned(plan, name, by, began, sets)
        else:
            found.held[name] = began[owner]
    for name, stream in plan.spec.streams.items():
        if stream.prompts is not None or stream.consensus_of is not None:
            nodes = {node: None for one in authors(plan, name) for node in reached(one, by)}
            many = [one for node in nodes if node in plan.owner for one in began[plan.owner[node]]]
            found.texts[name] = list(dict.fromkeys([*many, *_of_streams(plan, {name}, nodes, sets)]))
    for name, many in found.learned.items():
        found.outcomes[name] = _outcome(plan, name, many, began, found.purpose or "redistribution")
    if found.policy == "off":
        found.marks.clear()
    else:
        _say(found)
    return found


def _outcome(plan: Plan, name: str, many: list[Known], began: dict[str, list[Known]], purpose: Purpose) -> Outcome:
    mine = [one for one in began[plan.owner[name]] if one.licence.expression]
    family = {key for one in mine for keys in alternatives(one.licence.expression) for key in keys}
    student = Student(plan.task_of(name).source == "tokens", frozenset(family))
    return judge(student, [one.source for one in many if not one.own], purpose)


def _learned(
    plan: Plan, name: str, by: Any, began: dict[str, list[Known]], sets: dict[str, list[Known]]
) -> list[Known]:
    """All that reaches an agent: what it and those whom it hears began with, and the data of their streams."""
    nodes = reached(name, by)
    mine = plan.owner[name]
    many: dict[Known, None] = {}
    for node in nodes:
        if node in plan.owner:
            owner = plan.owner[node]
            for one in began[owner]:
                many[replace(one, kind="weights") if owner == mine and one.kind == "teacher" else one] = None
    streams = {edge.stream for edge in plan.edges if edge.target in nodes}
    return [*many, *(one for one in _of_streams(plan, streams, nodes, sets) if one not in many)]


def _of_streams(plan: Plan, streams: Iterable[str], nodes: Iterable[str], sets: dict[str, list[Known]]) -> list[Known]:
    """The data sets that streams have their samples or prompts of."""
    there: dict[str, None] = {}
    for name in streams:
        for one in (name, *below(plan.spec, name)):
            spec = plan.spec.streams.get(one)
            if spec is None:  # a split, or what parties have for themselves
                there[one] = None
            elif spec.generated_by is not None and spec.prompts is None and spec.mix is None:
                break  # samples that Python makes: `of` says how many
    found = [] if not there.keys() - {OWN} else list(sets[""])
    if OWN in there:
        found += [one for party, many in sets.items() if party and _of(plan.spec, party, nodes) for one in many]
    return found


def _of(spec: MeshSpec, party: str, nodes: Iterable[str]) -> bool:
    return any(node in spec.parties[party].agents for node in nodes)


def _say(found: Licences) -> None:
    """Note, mark or refuse, as the policy says."""
    if found.purpose is None:
        _quiet(found)
        return
    said: dict[str, list[str]] = {}
    for student, outcome in found.outcomes.items():
        for why, where in _against(found, student, outcome):
            if found.policy == "strict":
                instead = "another source, another purpose, or `policy: warn`"
                instead = f"its licence, if you know it; {instead}" if "unknown" in why else instead
                raise MeshError(f"{found.purpose} use of {student}: {why}", where=where, instead=instead)
            said.setdefault(why, []).append(student)
    for why, students in said.items():
        found.marks.append(f"licences, {found.purpose} use of {', '.join(students)}: {why}")
    open_ones = {
        one.source for outcome in found.outcomes.values() for one in outcome.findings if one.answer == "depends"
    }
    for source in found.where:
        if source in open_ones:
            what = f"whether {source.kind} {source.name} lets anyone learn from it for {found.purpose} use"
            found.notes.append(f"licences: {what} depends on what is not known here")


def _against(found: Licences, student: str, outcome: Outcome) -> Iterable[tuple[str, str]]:
    """What is against giving a student its purpose, or is unknown, with where it is declared."""
    at = {one.source: one.at for one in found.learned[student]}
    for one in outcome.findings:
        name = f"{one.source.kind} {one.source.name}"
        if one.answer == "against":
            yield f"{name} ({one.source.licence}) is against it: {_short(one.reasons[0])}", at[one.source]
        elif one.answer == "unknown":
            why = f"no clause of {', '.join(one.unread)} was read" if one.unread else one.source.licence.why
            yield f"the licence of {name} is unknown: {why}", at[one.source]
    if outcome.purpose in GIVEN:
        for clash in outcome.conflicts:
            yield f"{clash.one.source} and {clash.other.source} conflict: {clash.why}", "licences"


def _short(one: Cited) -> str:
    """A clause in brief, and where it stands whole."""
    return f"“{brief(one.clause.quote)}” ({one.terms.cited(one.clause)})"


def _quiet(found: Licences) -> None:
    """Without a purpose: what is declared and names none; a line where one that is known speaks of those who learn."""
    for one in found.sources:
        if one.where == one.at and not one.own and not one.licence.expression:
            found.notes.append(f"licences: {one.at}: {one.licence.why}")
    speak = []
    for one in found.sources:
        if one.own or not one.licence.expression:
            continue
        outcomes = [judge(Student(True), [one.source], purpose) for purpose in PURPOSES]
        loud = any(outcome.answer in ("against", "depends") for outcome in outcomes)
        if loud or any(duty.clause.kind != "attribution" for duty in outcomes[0].duties):
            speak.append(f"{one.name} ({one.licence})")
    if speak:
        said = ", ".join(speak)
        found.notes.append(
            f"licences of {said} speak of models that learn from it: `licences: {{purpose: ...}}` judges"
        )
