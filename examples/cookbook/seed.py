"""SEED: a small network learns to see samples as near to one another as a large one does, without any label.

Fang, Wang, Wang, Zhang, Yang and Liu, "SEED: Self-supervised Distillation For Visual Representation", ICLR 2021, arXiv
2101.04731.

The teacher's embeddings of earlier samples stand in a queue. How near the teacher's embedding of a sample is to each of
them, and to itself, is a distribution; the student's embedding of the same sample shall have the same one.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

import kdmesh
from kdmesh.offers import Config, ObjectiveOffer


class Settings(Config):
    """Settings of the objective."""

    size: int = Field(256, ge=1, description="embeddings in the queue")
    student: float = Field(0.2, gt=0, description="temperature of the student's distribution")
    teacher: float = Field(0.07, gt=0, description="temperature of the teacher's distribution")


def seed(size: int, student: float, teacher: float) -> Any:
    """The objective; torch is imported here, not where the offers are read."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from kdmesh.objectives import Objective, at_least_float32, batchmean, comparable, kept, refuse_form

    t_s, t_t = student, teacher

    class Seed(Objective):
        """``-sum_j softmax(z_t d_j / T_t)_j log softmax(z_s d_j / T_s)_j``, batchmean, over a queue and ``z_t`` itself.

        Embeddings are divided by their norms; the student's passes a trained linear layer to the teacher's size first.
        """

        def setup(self, student: torch.Size, target: torch.Size, **facts: Tensor | None) -> None:
            self.adapter = nn.Linear(student.numel(), target.numel())
            self.register_buffer("queue", F.normalize(torch.randn(size, target.numel())))
            self.register_buffer("place", torch.zeros((), dtype=torch.int64))

        def forward(
            self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
        ) -> Tensor:
            """Compare layers ``[B, ...]``."""
            refuse_form(self, form, ("hidden",))
            own = self.adapter(kept(at_least_float32(student), weights).flatten(1))
            own, other = comparable(own, target.flatten(1), weights)
            own, other = F.normalize(own), F.normalize(other)
            scores = [
                torch.cat([z @ self.queue.to(z.dtype).T, (z * other).sum(1, keepdim=True)], 1) / temperature
                for z, temperature in ((other, t_t), (own, t_s))
            ]
            if self.training and torch.is_grad_enabled():
                self._push((other if weights is None else other[weights != 0]).detach())
            return batchmean(-scores[0].softmax(1) * scores[1].log_softmax(1), weights)

        def _push(self, new: Tensor) -> None:
            """Put a batch's embeddings where the oldest are."""
            new = new[-size:].to(self.queue.dtype)
            places = (self.place + torch.arange(len(new), device=new.device)) % size
            self.queue = self.queue.index_copy(0, places, new)
            self.place = (self.place + len(new)) % size

    return Seed()


OBJECTIVE = ObjectiveOffer(
    "seed",
    "seed:seed",
    Settings,
    "how near samples are to a queue of others, as the teacher sees it",
    "Fang et al., SEED: Self-supervised Distillation For Visual Representation, 2021",
    reads="hidden",
    forms=("hidden",),
    reduction="batchmean",
)


@kdmesh.hookimpl
def kdmesh_objectives() -> list[ObjectiveOffer]:
    """Offer the objective."""
    return [OBJECTIVE]
