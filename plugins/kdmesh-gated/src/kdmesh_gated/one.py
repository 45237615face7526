"""ONE: branches of one network learn from labels and from their gated ensemble, which learns from labels too.

Lan, Zhu and Gong, Knowledge Distillation by On-the-Fly Native Ensemble, 2018.

    consensus: {gate: {rule: gate, trained: true}}
    flows:                                                    # branches: [b0, b1, b2], exits of one network
      - {from: labels, to: [b0, b1, b2], stream: train, objective: ce}
      - {from: [b0, b1, b2], to: gate, stream: train, refresh: step, detach: false}
      - {from: b0, to: gate, as: input, signal: hidden, tap: trunk, stream: train, refresh: step, detach: false}
      - {from: gate, to: [b0, b1, b2], objective: {taught_kl: {temperature: 3, share: 0.3333}}, detach: false}

`taught_kl` is where the teacher's own cross-entropy lives: a third of it at each of three readers. The sum is
``labels * (sum_m CE(z_m, y) + CE(z_gate, y)) + weight * sum_m T² KL(gate ‖ m)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.strategies import Canvas


@dataclass(frozen=True, kw_only=True)
class One:
    """One gate over all branches. Fields: see the offer's configuration."""

    branches: list[str]
    trunk: str
    temperature: float
    labels: float
    weight: float
    through: bool
    stream: str

    def draw(self, canvas: Canvas) -> None:
        """Draw the labels, the gate with what it reads, and what it teaches."""
        branches = canvas.learners(self.branches, "branches")
        if len(branches) < 2:
            raise MeshError("ONE needs at least two branches", where=f"{canvas.where}.branches", instead="two or more")
        canvas.labels(branches, self.labels, stream=self.stream)
        node = canvas.consensus("gate", {"rule": "gate", "trained": True})
        live = {"stream": self.stream, "refresh": "step", "detach": False}
        canvas.flow(branches, node, **live)
        canvas.flow(branches[0], node, as_="input", signal="hidden", tap=self.trunk, **live)
        share = self.labels / (self.weight * len(branches))
        objective = {"taught_kl": {"temperature": self.temperature, "share": share, "through": self.through}}
        canvas.flow(node, branches, objective=objective, weight=self.weight, detach=False)
