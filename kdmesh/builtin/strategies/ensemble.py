"""Teachers teach students: one directly, several through a consensus.

Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015; You et al., Learning from Multiple Teacher
Networks, 2017. Each student minimises ``labels * CE(labels) + weight * objective(teachers)``, weight being 1 - labels.

    consensus: {c: mean}                                      # one teacher: none, its flow ends at the students
    flows:
      - {from: labels, to: students, stream: train, objective: ce, weight: 0.5}
      - {from: teachers, to: c, stream: train}                # by default `refresh: once`: they learn first
      - {from: c, to: students, objective: {kl: {temperature: 4}}, weight: 0.5}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.builtin.strategies import _common
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.builtin.strategies._common import LabelWeight, Weight
    from kdmesh.graph.canvas import Canvas
    from kdmesh.spec import ConsensusSpec, ObjectiveRef, TapRef


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """One consensus node that all students share. Fields: see the offer's configuration."""

    teachers: list[str]
    student: list[str] | None
    students: list[str] | None
    consensus: ConsensusSpec
    objective: ObjectiveRef
    tap: TapRef | list[TapRef] | None
    labels: LabelWeight | None
    weight: Weight | None
    stream: str
    labels_stream: str
    refresh: str | None

    def draw(self, canvas: Canvas) -> None:
        """Draw the labels, then what the teachers say."""
        teachers = canvas.names(self.teachers, "teachers")
        students = _common.students(canvas, self.student, self.students)
        _common.apart(canvas, teachers, students)
        weight = _common.teaching(canvas, self.weight, self.labels)
        if self.tap is not None and len(teachers) > 1:
            raise MeshError(
                "a consensus cannot combine layers of several teachers",
                where=f"{canvas.where}.tap",
                instead="one `ensemble` for each teacher, with a tap of its own",
            )
        canvas.labels(students, self.labels, stream=self.labels_stream)
        if len(teachers) == 1:
            _common.refuse_rule(canvas, self.consensus)
            canvas.flow(
                teachers, students, tap=self.tap, stream=self.stream, objective=self.objective, weight=weight,
                refresh=self.refresh,
            )  # fmt: skip
        else:
            node = canvas.consensus("c", self.consensus)
            canvas.flow(teachers, node, stream=self.stream, refresh=self.refresh)
            canvas.flow(node, students, objective=self.objective, weight=weight)
