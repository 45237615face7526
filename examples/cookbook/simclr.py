"""SimCLR: two views of a sample are alike, and unlike all others of the batch; then few labels suffice.

Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
arXiv 2002.05709.

The strategy makes a second agent of the same weights, whose augmentations are drawn anew, and a flow between the two
with `detach: false`: gradients pass through both. The labels of few samples come in a second lesson.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

import kdmesh
from kdmesh.errors import MeshError
from kdmesh.offers import Config, ObjectiveOffer, StrategyOffer
from kdmesh.strategies import AgentSpec, Canvas, ObjectiveRef, ProgramItem, TapRef


class LossSettings(Config):
    """Settings of the objective."""

    temperature: float = Field(0.5, gt=0, description="of the softmax over the batch")
    dim: int = Field(32, ge=1, description="size of what the projection gives")


class Settings(LossSettings):
    """Settings of the strategy."""

    agent: str = Field(description="the agent, with the augmentations of its `view`")
    layer: str = Field(description="the layer that is compared")
    stream: str = Field("train", description="stream of the samples that are compared")
    labels_stream: str = Field("train", description="stream of the labels, in the second lesson")
    epochs: int = Field(10, ge=1, description="epochs of the first lesson")
    tune_epochs: int = Field(10, ge=1, description="epochs of the second lesson")


@dataclass(frozen=True, kw_only=True)
class SimCLR:
    """Two agents of one set of weights, a flow between them, and a program of two lessons."""

    agent: str
    layer: str
    stream: str
    labels_stream: str
    epochs: int
    tune_epochs: int
    temperature: float
    dim: int

    def draw(self, canvas: Canvas) -> None:
        """Draw the second agent, the flows and the program."""
        (one,) = canvas.learners([self.agent], "agent")
        view = canvas.agents[one].view
        if not view.augment:
            what = f"{one!r} has no augmentations, and two equal views teach nothing"
            raise MeshError(what, where=f"agents.{one}.view", instead="view: {augment: [shift, noise]}")
        other = canvas.agent(f"{one}.other", AgentSpec(weights_of=one, view=view))
        loss = ObjectiveRef(name="nt_xent", config={"temperature": self.temperature, "dim": self.dim})
        tap = TapRef(of=self.layer, to=self.layer)
        canvas.flow(other, one, stream=self.stream, tap=tap, objective=loss, detach=False, lesson="contrast")
        canvas.labels([one], 1.0, stream=self.labels_stream, lesson="tune")
        for lesson, epochs in (("contrast", self.epochs), ("tune", self.tune_epochs)):
            canvas.program(ProgramItem(of=[one], lesson=lesson, epochs=epochs))


def nt_xent(temperature: float, dim: int) -> Any:
    """The objective; torch is imported here, not where the offers are read."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from kdmesh.objectives import Objective, at_least_float32, comparable, refuse_form

    class NTXent(Objective):
        """The mean over both views of ``-log(e^(z_i z_j / T) / sum_(k != i) e^(z_i z_k / T))``, then over samples.

        j is the other view of i, and k goes through all 2B views of the batch. z: the signal through a projection of
        two trained layers, which both sides share, divided by its norm. A sample of weight 0 is no other for the rest.
        """

        def setup(self, student: torch.Size, target: torch.Size, **facts: Tensor | None) -> None:
            if student != target:
                raise ValueError(f"two views of one layer have one shape, and these are {student} and {target}")
            size = student.numel()
            self.projection = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, dim))

        def forward(
            self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
        ) -> Tensor:
            """Compare layers ``[B, ...]`` of two views; gradients reach both."""
            refuse_form(self, form, ("hidden",))
            batch = len(student)
            student, target = comparable(at_least_float32(student), target, weights)
            if weights is not None:
                heard = weights != 0
                student, target, weights = student[heard], target[heard], weights[heard]
            z = F.normalize(self.projection(torch.cat([student, target]).flatten(1)))
            rows = torch.arange(len(z), device=z.device)
            scores = (z @ z.T / temperature).masked_fill(rows == rows[:, None], -torch.inf)
            losses = F.cross_entropy(scores, rows.roll(len(student)), reduction="none").view(2, -1).mean(0)
            return (losses if weights is None else losses * weights.to(losses.dtype)).sum() / batch

    return NTXent()


PAPER = "Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020"
OBJECTIVE = ObjectiveOffer(
    "nt_xent",
    "simclr:nt_xent",
    LossSettings,
    "two views of a sample are alike, and unlike all others of the batch",
    PAPER,
    reads="hidden",
    forms=("hidden",),
)
STRATEGY = StrategyOffer("simclr", "simclr:SimCLR", Settings, "two views of one agent, then labels", PAPER)


@kdmesh.hookimpl
def kdmesh_objectives() -> list[ObjectiveOffer]:
    """Offer the objective."""
    return [OBJECTIVE]


@kdmesh.hookimpl
def kdmesh_strategies() -> list[StrategyOffer]:
    """Offer the strategy."""
    return [STRATEGY]
