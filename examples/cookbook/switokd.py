"""SwitOKD: two networks teach each other, and the teacher pauses while its student is too far behind.

Qian, Wang, Yin, Hong and Wang, "Switchable Online Knowledge Distillation", ECCV 2022, arXiv 2209.04996.

A gate that shuts both of the teacher's flows, labels and its student, leaves it no loss, and so skips its update. The
strategy draws the four flows and puts the gate where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

import kdmesh
from kdmesh.offers import Config, GateOffer, StrategyOffer
from kdmesh.strategies import Canvas, apart, softened


class GapSettings(Config):
    """Settings of the gate."""

    temperature: float = Field(1.0, gt=0, description="of the softmax by which the two are compared")


class Settings(GapSettings):
    """Settings of the strategy."""

    teacher: str = Field(description="the agent that may pause")
    student: str = Field(description="the agent that never does")


@dataclass(frozen=True, kw_only=True)
class SwitOKD:
    """Labels for both, and each other's answers at T = 1; the teacher's two flows are gated."""

    teacher: str
    student: str
    temperature: float

    def draw(self, canvas: Canvas) -> None:
        """Draw the four flows."""
        (teacher,) = canvas.learners([self.teacher], "teacher")
        (student,) = canvas.learners([self.student], "student")
        apart(canvas, [teacher], [student])
        gate = {"switokd_gap": {"of": student, "temperature": self.temperature}}
        for name, other, more in ((teacher, student, {"gate": gate}), (student, teacher, {})):
            canvas.flow("labels", name, objective=canvas.label_objective, **more)
            canvas.flow(other, name, objective=softened(1.0), **more)


def gap(temperature: float) -> Any:
    """The gate; torch is imported here, not where the offers are read."""
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from kdmesh.gates import Gate

    class Gap(Gate):
        """Shut if ``G > S - exp(-T / (S + T)) T`` and ``T < S``.

        ``G = |p_s - p_t|``, ``T = |p_t - y|``, ``S = |p_s - y|``: L1 distances, averaged over the batch.
        """

        def forward(self, *, own: Tensor, other: Tensor, labels: Tensor) -> Tensor:
            """``own [B, C]``: the logits of the agent with the gate, the teacher; ``other``: its student's."""
            p_t, p_s = ((z / temperature).softmax(-1) for z in (own, other))
            y = F.one_hot(labels, p_t.shape[-1]).to(p_t.dtype)
            gap, mine, theirs = ((p - q).abs().sum(-1).mean() for p, q in ((p_s, p_t), (p_t, y), (p_s, y)))
            total = (mine + theirs).clamp_min(torch.finfo(own.dtype).tiny)  # 0: both are right beyond doubt
            return ~((gap > theirs - torch.exp(-mine / total) * mine) & (mine < theirs))

    return Gap()


GATE = GateOffer(
    "switokd_gap",
    "switokd:gap",
    GapSettings,
    "pauses a teacher while its student is too far behind",
    "Qian et al., Switchable Online Knowledge Distillation, 2022",
    needs=("own", "other", "labels"),
    answers=("classes",),
)
STRATEGY = StrategyOffer(
    "switokd",
    "switokd:SwitOKD",
    Settings,
    "mutual learning of two, in which the teacher may pause",
    "Qian et al., Switchable Online Knowledge Distillation, 2022",
)


@kdmesh.hookimpl
def kdmesh_gates() -> list[GateOffer]:
    """Offer the gate."""
    return [GATE]


@kdmesh.hookimpl
def kdmesh_strategies() -> list[StrategyOffer]:
    """Offer the strategy."""
    return [STRATEGY]
