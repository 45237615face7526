"""Agents answer, read what the others answered, answer again; a vote closes, and students learn what it chose.

Du et al., Improving Factuality and Reasoning in Language Models through Multiagent Debate, 2023: every agent reads the
others' last answers. With ``rounds`` 0 it is a vote without debate. It draws streams alone, and the labels of students
on the last one:

    streams:
      debate.0.a: {generated_by: a, prompts: train, refresh: once}
      debate.1.a: {generated_by: a, prompts: train, refresh: once, reads: {other_1: debate.0.b}, template: ...}
      debate: {consensus_of: [debate.1.a, debate.1.b], rule: vote}
    flows:
      - {from: labels, to: student, stream: debate, objective: ce}

With ``teach: pairs`` the last stream has pairs of all that was said in any round, as the rule ``pairs`` makes them, and
students compare them with a ``reference``: a right answer over a wrong one, say, taught by DPO. After Zhou, Huang and
Liao, Debate, Reflect, and Distill: Multi-Agent Feedback with Tree-Structured Preference Optimization for Efficient
Language Model Enhancement, 2025, who make a tree of them.

Where the mesh has metrics of texts, it is measured beside what it is to beat: the vote without debate, and each
debater's vote with itself, of as many texts as the debate takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdmesh.builtin.strategies import _common
from kdmesh.errors import MeshError
from kdmesh.spec import SamplingSpec, StreamSpec, TextRuleRef

if TYPE_CHECKING:
    from kdmesh.builtin.strategies._common import LabelWeight, Weight
    from kdmesh.graph.canvas import Canvas
    from kdmesh.spec import FilterRef, ObjectiveRef

OTHERS, OWN = "{{ others }}", re.compile(r"\bown\b")
STREAM = {"prompts": "stream", "generated_by": "debaters", "consensus_of": "debaters"}


@dataclass(frozen=True, kw_only=True)
class Debate:
    """Streams by round and debater, those that close it, and those that it is compared with."""

    debaters: list[str]
    student: list[str] | None
    students: list[str] | None
    rounds: int
    rule: TextRuleRef | None
    teach: str
    pairs: TextRuleRef | None
    reference: str | None
    template: str
    between: str
    practice: str | None
    roles: dict[str, str] | None
    sampling: SamplingSpec
    keep: list[FilterRef] | None
    refresh: str | None
    history: Any
    objective: ObjectiveRef | None
    weight: Weight
    labels: LabelWeight | None
    stream: str
    labels_stream: str

    def draw(self, canvas: Canvas) -> None:
        """Draw all streams, then what students learn."""
        debaters = canvas.names(self.debaters, "debaters")
        students = _common.students(canvas, self.student, self.students)
        self._refuse(canvas, debaters, students)
        refresh = self.refresh or ("epoch" if set(students) & set(debaters) else "once")
        common: dict[str, Any] = {"prompts": self.stream, "refresh": refresh, "sampling": self.sampling}
        turns: list[list[str]] = []
        for turn in range(self.rounds + 1):
            turns.append([
                canvas.stream(f"debate.{turn}.{name}", {
                    "generated_by": name, **common, **self._asked(name, at, turns[-1] if turns else []),
                }, STREAM)
                for at, name in enumerate(debaters)
            ])  # fmt: skip
        measured = canvas.measures_texts
        closed = {"rule": self.closing, "measured": measured}
        learned: dict[str, Any] = {"keep": self.keep, "history": self.history}
        every = [name for turn in turns for name in turn]
        winner = self.teach == "winner"
        if winner or measured or self.teach == "transcript":
            name, more = ("debate", learned) if winner else ("debate.answer", {})
            last = canvas.stream(name, {"consensus_of": turns[-1], **closed, **more}, STREAM)
        if self.teach == "transcript":
            rule = {"joined": {"between": self.between}}
            last = canvas.stream(
                "debate", {"consensus_of": [*every, last], "rule": rule, **learned}, {"rule": "between"}
            )
        if self.teach == "pairs":
            made = {"consensus_of": every, "rule": self.pairs, "pairs": True}
            last = canvas.stream("debate", {**made, **learned}, {**STREAM, "rule": "pairs"})
        if measured:
            self._compare(canvas, debaters, turns[0], common)
        self._practise(canvas, [name for name in debaters if name not in students])
        canvas.labels(students, self.labels, stream=self.labels_stream)
        if self.reference is None:
            canvas.labels(students, self.weight, stream=last, objective=self.objective)
        else:
            loss = {"objective": self.objective, "weight": self.weight}
            canvas.flow(self.reference, students, stream=last, **loss)

    @property
    def closing(self) -> TextRuleRef:
        """By what rule the debate closes."""
        return self.rule or TextRuleRef(name="vote")

    def _asked(self, name: str, at: int, before: list[str]) -> dict[str, Any]:
        """What a debater is asked: the prompt, after its role; later with what it reads of the round before."""
        role = (self.roles or {}).get(name, "")
        if not before:
            return {"template": f"{role}{{{{ prompt }}}}"} if role else {}
        others = {f"other_{number + 1}": one for number, one in enumerate(b for k, b in enumerate(before) if k != at)}
        said = self.between.join(f"{{{{ {key}.text }}}}" for key in others)
        own = {"own": before[at]} if OWN.search(self.template) else {}
        return {"template": role + self.template.replace(OTHERS, said), "reads": {**own, **others}}

    def _practise(self, canvas: Canvas, debaters: list[str]) -> None:
        """Debaters that learn the data's answers learn them after made-up answers of others, too."""
        if self.practice is None:
            return
        learners = [name for name in debaters if canvas.agents[name].update == "grad"]
        if not learners:
            what = "no debater learns the data's answers beside this debate, so that this has no effect"
            raise MeshError(what, where=f"{canvas.where}.practice", instead="leave it out")
        for name in learners:
            owner = canvas.agents[name].weights_of or name
            told = canvas.agent(f"{name}.told", {"weights_of": owner, "view": {"prompt": self.practice}})
            canvas.labels([name, told], 1.0, stream=self.labels_stream)

    def _compare(self, canvas: Canvas, debaters: list[str], first: list[str], common: dict[str, Any]) -> None:
        """Streams that are measured alone: nobody learns them."""
        closed: dict[str, Any] = {"rule": self.closing, "measured": True}
        if self.rounds:
            canvas.stream("debate.vote", {"consensus_of": first, **closed})
        count = len(debaters) * (self.rounds + 1)
        drawn = self.sampling.model_copy(update={"samples": count, "greedy": False})
        for at, name in enumerate(debaters):
            alone = {"generated_by": name, **common, "sampling": drawn, **self._asked(name, at, [])}
            draws = canvas.stream(f"debate.draws.{name}", StreamSpec.model_validate(alone))
            canvas.stream(f"debate.self.{name}", {"consensus_of": [draws], **closed})

    def _refuse(self, canvas: Canvas, debaters: list[str], students: list[str]) -> None:
        """Refuse a debate of one, templates that read nobody, and roles of others."""
        where = canvas.where
        self._refuse_pairs(canvas, students)
        if len(debaters) < 2:
            raise MeshError("one agent debates with nobody", where=f"{where}.debaters", instead="two agents, or more")
        if self.rounds and OTHERS not in self.template:
            what = f"the template has no {OTHERS}, where the others' answers stand"
            raise MeshError(what, where=f"{where}.template", instead="{{ prompt }} Others said: {{ others }}")
        for name in self.roles or {}:
            if name not in debaters:
                raise MeshError(f"{name!r} is no debater", where=f"{where}.roles", instead=", ".join(debaters))
        for name in debaters:
            if canvas.agents[name].view.prompt is not None:
                what = f"{name} has a prompt of its own, and is asked by templates here"
                raise MeshError(what, where=f"{where}.debaters", instead=f"roles: {{{name}: TEXT}}")
        if self.sampling.samples > 1:
            what = "each debater says one text a round"
            raise MeshError(what, where=f"{where}.sampling.samples", instead="leave it out")

    def _refuse_pairs(self, canvas: Canvas, students: list[str]) -> None:
        """Refuse what is for pairs alone, pairs that nothing makes, and a rule that closes what nobody measures."""
        where = canvas.where
        needed = {"pairs": "a rule that rejects texts, as best_of", "reference": "an agent", "objective": "dpo"}
        for name, instead in needed.items():
            given = getattr(self, name) is not None
            if self.teach == "pairs" and not given:
                raise MeshError(f"`teach: pairs` needs `{name}`", where=f"{where}.{name}", instead=instead)
            if self.teach != "pairs" and given and name != "objective":
                raise MeshError(f"`{name}` is for `teach: pairs`", where=f"{where}.{name}", instead="leave it out")
        if self.reference is not None and canvas.names(self.reference, "reference")[0] in students:
            what = f"{self.reference} would be compared with itself, as it is in each step"
            instead = "an agent that stays: a flow `as: weights` from it to the student gives both one beginning"
            raise MeshError(what, where=f"{where}.reference", instead=instead)
        if self.teach == "pairs" and self.rule is not None and not canvas.measures_texts:
            what = "pairs are made by `pairs`, and nothing is measured that a rule would close"
            raise MeshError(what, where=f"{where}.rule", instead="leave it out, or metrics: [numeric_answer]")
