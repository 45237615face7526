"""A model teaches itself: by the average of its weights, by its last epoch, or by its last batch.

`ema`: Tarvainen and Valpola, Mean Teachers Are Better Role Models, 2017. `epoch`: Kim et al., Self-Knowledge
Distillation with Progressive Refinement of Targets, 2021; its target (1-a)y + a*p is `labels` falling by a ramp while
`weight` rises. `batch`: Shen et al., Self-Distillation from the Last Mini-Batch for Consistency Regularization, 2022;
there the labels of the earlier batch are learned again too, here each label is learned once an epoch.

    agents: {s.ema: {update: {ema: {of: s, decay: 0.99}}}}    # ema
    streams: {replay: {of: train, replay: true}}              # batch
    flows:
      - {from: labels, to: s, stream: train, objective: ce}
      - {from: s.ema, to: s, stream: train, objective: kl, refresh: step}                      # ema
      - {from: s, to: s, stream: train, objective: kl, refresh: epoch, stale: recorded}        # epoch
      - {from: s, to: s, stream: replay, objective: kl, refresh: step, stale: recorded}        # batch
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.builtin.strategies import _common
from kdmesh.errors import MeshError
from kdmesh.spec import EmaSpec, StreamSpec
from kdmesh.spec.agents import EmaUpdate

if TYPE_CHECKING:
    from kdmesh.builtin.strategies._common import LabelWeight, Weight
    from kdmesh.graph.canvas import Canvas
    from kdmesh.spec import ObjectiveRef


@dataclass(frozen=True, kw_only=True)
class SelfDistillation:
    """One flow for each student, from its own past. ``decay`` belongs to `ema`, ``stale`` to `epoch`."""

    student: list[str] | None
    students: list[str] | None
    teacher: str
    decay: float | None
    stale: str | None
    objective: ObjectiveRef
    labels: LabelWeight | None
    weight: Weight
    stream: str
    labels_stream: str

    def draw(self, canvas: Canvas) -> None:
        """Draw each student's labels, then its own past."""
        students = _common.students(canvas, self.student, self.students)
        self._refuse(canvas)
        stream, refresh, stale = self.stream, "step", None
        if self.teacher == "epoch":
            refresh, stale = "epoch", self.stale or "recorded"
        elif self.teacher == "batch":
            stream, stale = canvas.stream("replay", StreamSpec(of=self.stream, replay=True)), "recorded"
        for name in students:
            canvas.labels([name], self.labels, stream=self.labels_stream)
            source = self._average(canvas, name) if self.teacher == "ema" else name
            canvas.flow(
                source, name, stream=stream, objective=self.objective, weight=self.weight, refresh=refresh, stale=stale
            )

    def _average(self, canvas: Canvas, name: str) -> str:
        """An agent whose weights follow; it sees and trains as the one it follows."""
        ema = EmaSpec(of=name) if self.decay is None else EmaSpec(of=name, decay=self.decay)
        follow = {"update": EmaUpdate(ema=ema), "model": None, "weights_of": None, "seed": None, "init_of": None}
        return canvas.agent(f"{name}.ema", canvas.agents[name].model_copy(update=follow))

    def _refuse(self, canvas: Canvas) -> None:
        """Refuse settings of another teacher, and a batch that was never seen."""
        for field, value, owner in (("decay", self.decay, "ema"), ("stale", self.stale, "epoch")):
            if value is not None and self.teacher != owner:
                raise MeshError(
                    f"`{field}` has no effect with the teacher {self.teacher!r}",
                    where=f"{canvas.where}.{field}",
                    instead=f"leave it out, or `teacher: {owner}`",
                )
        if self.teacher == "batch" and (self.labels is None or self.labels == 0 or self.labels_stream != self.stream):
            raise MeshError(
                "the last batch is recorded only where its labels are learned too",
                where=f"{canvas.where}.teacher",
                instead="labels on the same stream, or `teacher: ema`",
            )
