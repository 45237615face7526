"""The built-in gates as offers: reading this imports no torch."""

from __future__ import annotations

from pydantic import Field

from kdmesh.offers import Config, GateOffer
from kdmesh.spec import Temperature
from kdmesh.spec.base import MOST


class ConfidentConfig(Config):
    """Settings of `confident`."""

    start: float = Field(0.9, ge=0, le=1, description="least confidence of a row that counts in the first epoch")
    end: float = Field(0.0, ge=0, le=1, description="the same when the curriculum is over, and after")
    epochs: int = Field(10, ge=1, le=MOST, description="length of the curriculum, in epochs of the lesson")

    def idle(self) -> dict[str, str]:
        """No bound; one that does not move, or that is at its end from the first epoch on."""
        if self.start == self.end == 0:
            return {"start": "every row counts, from the first epoch to the last"}
        if self.epochs == 1 and self.start != self.end:
            return {"start": "a curriculum of one epoch is at its end from the first"}
        moves = self.start != self.end or "epochs" not in self.model_fields_set
        return {} if moves else {"epochs": "`start` and `end` are the same"}


class GapConfig(Config):
    """Settings of `gap`."""

    temperature: Temperature = Field(1.0, description="softmax temperature of both sides")


class SmallLossConfig(Config):
    """Settings of `small_loss`."""

    forget: float = Field(0.2, ge=0, lt=1, description="share of a batch that is left out in the end: the noise rate")
    epochs: int = Field(10, ge=1, le=MOST, description="epochs in which the share grows to that")

    def idle(self) -> dict[str, str]:
        """Nobody is forgotten."""
        return {} if self.forget else {"forget": "no row is left out"}


GATES = [
    GateOffer(
        "confident",
        "kdmesh.builtin.gates.confident:Confident",
        ConfidentConfig,
        "rows of which the source is confident, all of them in the end (curriculum)",
        needs=("confidence", "epoch"),
        rows=True,
        answers=("classes",),
    ),
    GateOffer(
        "gap",
        "kdmesh.builtin.gates.gap:Gap",
        GapConfig,
        "pauses a teacher while its student is too far behind (SwitOKD)",
        "Qian et al., Switchable Online Knowledge Distillation, 2022",
        needs=("own", "other", "labels"),
        answers=("classes",),
    ),
    GateOffer(
        "small_loss",
        "kdmesh.builtin.gates.small_loss:SmallLoss",
        SmallLossConfig,
        "rows of small loss, fewer with the epochs (co-teaching)",
        "Han et al., Co-teaching, 2018",
        needs=("losses", "counted", "epoch"),
        rows=True,
    ),
]
