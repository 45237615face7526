"""A model explains answers to itself, keeps the explanations that end right, and learns them: from its base each time.

Zelikman et al., STaR: Bootstrapping Reasoning With Reasoning, 2022. In each round the agent that learned last answers
every prompt; where that is wrong, so does it once it is told the solution (``hint``), and of both the first that is
right is kept. Then the base learns what was kept, anew from its initial weights. Each round is an agent of its own:

    agents:
      student.hinted: {weights_of: student, view: {prompt: HINT}}
      student.r1: {..., init_of: student}
    streams:
      star.1.own: {generated_by: student, prompts: train, refresh: once}
      star.1.hinted: {generated_by: student.hinted, prompts: train, refresh: once}
      star.1: {consensus_of: [star.1.own, star.1.hinted], rule: {best_of: {metric: ..., least: 1}}}
    flows:
      - {from: labels, to: student, stream: few}
      - {from: labels, to: student.r1, stream: few}
      - {from: labels, to: student.r1, stream: star.1}

There a hint is given only where the answer was wrong; here to all prompts, and used only where it was wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.spec import TextRuleRef

if TYPE_CHECKING:
    from kdmesh.builtin.strategies._common import LabelWeight, Weight
    from kdmesh.graph.canvas import Canvas
    from kdmesh.spec import MetricRef, ObjectiveRef, SamplingSpec


@dataclass(frozen=True, kw_only=True)
class Star:
    """Rounds of writing, keeping and learning from the base."""

    student: list[str]
    rounds: int
    metric: MetricRef
    least: float
    hint: str | None
    sampling: SamplingSpec
    objective: ObjectiveRef | None
    weight: Weight
    labels: LabelWeight | None
    stream: str
    labels_stream: str

    def draw(self, canvas: Canvas) -> None:
        """Draw each round's streams and agent."""
        names = canvas.learners(self.student, "student")
        if len(names) > 1:
            raise MeshError("one agent explains to itself", where=f"{canvas.where}.student", instead=names[0])
        student = names[0]
        if canvas.agents[student].weights_of is not None:
            what = f"{student!r} has the weights of another, and cannot start from its base again"
            raise MeshError(what, where=f"{canvas.where}.student", instead=str(canvas.agents[student].weights_of))
        canvas.labels([student, *self._hinted(canvas, student)], self.labels, stream=self.labels_stream)
        writer = student
        for turn in range(1, self.rounds + 1):
            kept = self._kept(canvas, writer, turn)
            writer = canvas.agent(f"{student}.r{turn}", self._base(canvas, student))
            told = self._hinted(canvas, writer) if turn < self.rounds else []
            canvas.labels([writer, *told], self.labels, stream=self.labels_stream)
            canvas.labels([writer], self.weight, stream=kept, objective=self.objective)

    def _base(self, canvas: Canvas, student: str) -> Any:
        """The student as it begins."""
        spec = canvas.agents[student]
        return spec.model_copy(update={} if spec.weights is not None else {"init_of": student, "seed": None})

    def _hinted(self, canvas: Canvas, name: str) -> list[str]:
        """The same weights, told the solution; none without a hint."""
        if self.hint is None:
            return []
        given = {"weights_of": name, "view": {"prompt": self.hint}}
        return [canvas.agent(f"{name}.hinted", given)]

    def _kept(self, canvas: Canvas, writer: str, turn: int) -> str:
        """The stream of what is right."""
        common: dict[str, Any] = {"prompts": self.stream, "refresh": "once", "sampling": self.sampling}
        who = {"own": writer} | ({"hinted": f"{writer}.hinted"} if self.hint is not None else {})
        said = [
            canvas.stream(f"star.{turn}.{part}", {"generated_by": name, **common}, {"prompts": "stream"})
            for part, name in who.items()
        ]
        settings = {"metric": self.metric.model_dump(mode="json"), "least": self.least}
        return canvas.stream(
            f"star.{turn}",
            {"consensus_of": said, "rule": TextRuleRef(name="best_of", config=settings)},
            {"rule.best_of.metric": "metric", "rule.best_of.least": "least", "rule": "metric"},
        )
