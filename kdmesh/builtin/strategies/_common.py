"""What strategies have in common: the types of their settings, and the questions they all ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from kdmesh.errors import MeshError
from kdmesh.spec import DEFAULT_RULE, ConsensusSpec, ObjectiveRef, Ramp, RuleRef
from kdmesh.spec.flows import PERIOD

if TYPE_CHECKING:
    from kdmesh.graph.canvas import Canvas


MEAN = ConsensusSpec(rule=RuleRef(name=DEFAULT_RULE))


def one_or_many(value: Any) -> Any:
    """Read a name as a list of one."""
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(one_or_many), Field(min_length=1)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Ramp
LabelWeight = Annotated[float, Field(ge=0, allow_inf_nan=False)] | Ramp
Period = Annotated[str, Field(pattern=PERIOD.pattern)]
Stream = Annotated[str, Field(description="stream on which knowledge passes")]
LabelsStream = Annotated[str, Field(description="stream of the labels")]
Labels = Annotated[
    LabelWeight | None, Field(description="weight of the students' labels, or {start, end, epochs}; null: no labels")
]
Objective = Annotated[ObjectiveRef, Field(description="loss between a student and what teaches it")]


def softened(temperature: float) -> ObjectiveRef:
    """Forward KL at a temperature, Hinton's loss."""
    return ObjectiveRef(name="kl", config={"temperature": temperature})


def students(canvas: Canvas, one: list[str] | None, many: list[str] | None) -> list[str]:
    """The agents that learn: named in `student` or in `students`, which mean the same."""
    if (one is None) == (many is None):
        what = "students are named in two fields" if one else "no student is named"
        raise MeshError(what, where=canvas.where, instead="student: NAME, or students: [NAMES]")
    return canvas.learners(one or many or [], "student" if one else "students")


def apart(canvas: Canvas, teachers: list[str], students: list[str]) -> None:
    """Refuse an agent that is teacher and student at once."""
    for name in teachers:
        if name in students:
            raise MeshError(
                f"{name!r} is both teacher and student",
                where=f"{canvas.where}.teachers",
                instead="`mutual` for agents that teach each other, `self` for one that teaches itself",
            )


def refuse_rule(canvas: Canvas, consensus: ConsensusSpec) -> None:
    """Refuse a rule other than the default where there is one source, so that nothing is combined."""
    if consensus != MEAN:
        raise MeshError(
            f"the consensus rule {consensus.rule.name!r} has no effect: there is one source only",
            where=f"{canvas.where}.consensus",
            instead="several sources, or leave `consensus` out",
        )


def teaching(canvas: Canvas, weight: Weight | None, labels: LabelWeight | None) -> Weight:
    """The weight of the teachers' loss: as given, else 1 minus the weight of labels."""
    if weight is not None:
        return weight
    ends = [0.0] if labels is None else [labels.start, labels.end] if isinstance(labels, Ramp) else [labels]
    left = [round(1 - end, 12) for end in ends]  # 1 - 0.9 is 0.1, also in print
    if min(left) < 0 or max(left) == 0:
        raise MeshError(
            f"labels with weight {max(ends):g} leave no weight for the teacher (the two sum to 1)",
            where=f"{canvas.where}.labels",
            instead="labels: 0.5, or give `weight` too",
        )
    return Ramp(start=left[0], end=left[1], epochs=labels.epochs) if isinstance(labels, Ramp) else left[0]


def divided(weight: Weight, parts: int) -> Weight:
    """An equal part of a weight."""
    if isinstance(weight, Ramp):
        return Ramp(start=weight.start / parts, end=weight.end / parts, epochs=weight.epochs)
    return weight / parts
