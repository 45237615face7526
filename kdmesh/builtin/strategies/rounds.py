"""Students refine in rounds: learn from labels of their own, publish, and digest the consensus.

Li and Wang, FedMD: Heterogenous Federated Learning via Model Distillation, 2019: parties with private labels and models
of any kind, whose outputs alone meet, on public samples. There a round begins with the digest, after training on the
public set; here it begins with the own labels. Teachers, if any, speak in the same consensus: they learn first, once.

    consensus: {c: mean}
    flows:
      - {from: labels, to: students, stream: train, objective: ce, lesson: own}
      - {from: teachers, to: c, stream: transfer, refresh: once}
      - {from: students, to: c, stream: transfer, refresh: round}
      - {from: c, to: students, objective: {kl: {temperature: 4}}, lesson: digest}
    program:
      - of: students
        repeat: 10
        do: [{lesson: own, epochs: 1}, {publish: students, to: c}, {lesson: digest, epochs: 1}]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.builtin.strategies import _common
from kdmesh.errors import MeshError
from kdmesh.spec import ProgramItem, Until

if TYPE_CHECKING:
    from kdmesh.builtin.strategies._common import LabelWeight, Weight
    from kdmesh.graph.canvas import Canvas
    from kdmesh.spec import ConsensusSpec, ObjectiveRef

OWN, DIGEST = "own", "digest"


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """One stage of all students, with a program. ``labels`` None or 0: students have no lesson of their own."""

    teachers: list[str] | None
    student: list[str] | None
    students: list[str] | None
    consensus: ConsensusSpec
    include_self: bool
    objective: ObjectiveRef
    labels: LabelWeight | None
    weight: Weight
    stream: str
    labels_stream: str
    rounds: int
    local_epochs: int
    digest_epochs: int
    agreement: float | None
    patience: int | None

    def draw(self, canvas: Canvas) -> None:
        """Draw the council's flows and its program."""
        teachers = canvas.names(self.teachers, "teachers") if self.teachers else []
        students = _common.students(canvas, self.student, self.students)
        _common.apart(canvas, teachers, students)
        labelled = self.labels is not None and self.labels != 0
        self._refuse(canvas, teachers, students, labelled)
        update = {} if self.include_self else {"include_self": False}
        node = canvas.consensus("c", self.consensus.model_copy(update=update))
        canvas.labels(students, self.labels, stream=self.labels_stream, lesson=OWN)
        if teachers:
            canvas.flow(teachers, node, stream=self.stream, refresh="once")
        canvas.flow(students, node, stream=self.stream, refresh="round")
        canvas.flow(node, students, objective=self.objective, weight=self.weight, lesson=DIGEST)
        own = [ProgramItem(lesson=OWN, epochs=self.local_epochs)] if labelled else []
        digest = [ProgramItem(publish=students, to=node), ProgramItem(lesson=DIGEST, epochs=self.digest_epochs)]
        until = None
        if self.agreement is not None or self.patience is not None:
            until = Until(agreement=self.agreement, patience=self.patience)
        canvas.program(ProgramItem(of=students, repeat=self.rounds, until=until, do=[*own, *digest]))

    def _refuse(self, canvas: Canvas, teachers: list[str], students: list[str], labelled: bool) -> None:
        """Refuse a council without anything to learn from."""
        if not teachers and len(students) == 1:
            raise MeshError(
                "a single student without teachers has no source to learn from",
                where=f"{canvas.where}.students",
                instead="several students, or teachers",
            )
        if not teachers and not labelled:
            raise MeshError(
                "there are neither teachers nor labels to learn from",
                where=f"{canvas.where}.labels",
                instead="labels: 1.0, or name teachers",
            )
