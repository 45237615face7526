"""A queue of keys: of all that the source has embedded lately, which one belongs to this sample?

He, Fan, Wu, Xie and Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning" (MoCo), CVPR 2020,
arXiv 1911.05722, where keys come from an average of the own weights, an `ema` agent as in the mesh below. With keys of
a teacher it distils, as queues of a teacher's features do in Koohpayegani, Tejankar and Pirsiavash, "CompRess:
Self-Supervised Learning by Compressing Representations", NeurIPS 2020, arXiv 2010.14713 (whose loss is another).

An objective with a memory: buffers, which checkpoints hold, moved in training alone, and replaced rather than changed
in place, since the loss's graph still holds the old ones. What has weight 0 enters neither the loss nor the queue.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

import kdmesh
from kdmesh.offers import Config, ObjectiveOffer


class Settings(Config):
    """Settings of the objective."""

    size: int = Field(256, ge=1, description="keys in the queue")
    temperature: float = Field(0.07, gt=0, description="of the softmax over keys")


def queue(size: int, temperature: float) -> Any:
    """The objective; torch is imported here, not where the offers are read."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from kdmesh.objectives import Objective, at_least_float32, batchmean, comparable, kept, refuse_form

    class Queue(Objective):
        """``-log(e^(q k / T) / (e^(q k / T) + sum_j e^(q k_j / T)))``, batchmean; q and k are divided by their norms.

        q: the student's signal, by a trained linear layer where it has another size than the source's; k: the source's
        signal of the same sample; ``k_j``: the queue, which begins with random directions.
        """

        def setup(self, student: torch.Size, target: torch.Size, **facts: Tensor | None) -> None:
            own, other = student.numel(), target.numel()
            self.adapter = nn.Linear(own, other) if own != other else nn.Identity()
            self.register_buffer("keys", F.normalize(torch.randn(size, other)))
            self.register_buffer("place", torch.zeros((), dtype=torch.int64))

        def forward(
            self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
        ) -> Tensor:
            """Compare layers ``[B, ...]``."""
            refuse_form(self, form, ("hidden",))
            own = self.adapter(kept(at_least_float32(student), weights).flatten(1))
            own, key = comparable(own, target.flatten(1), weights)
            own, key = F.normalize(own), F.normalize(key)
            near = (own * key).sum(1, keepdim=True)
            scores = torch.cat([near, own @ self.keys.to(own.dtype).T], 1) / temperature
            if self.training and torch.is_grad_enabled():
                self._push((key if weights is None else key[weights != 0]).detach())
            return batchmean(scores.logsumexp(1) - scores[:, 0], weights)

        def _push(self, keys: Tensor) -> None:
            """Put a batch's keys where the oldest are."""
            keys = keys[-size:].to(self.keys.dtype)
            places = (self.place + torch.arange(len(keys), device=keys.device)) % size
            self.keys = self.keys.index_copy(0, places, keys)
            self.place = (self.place + len(keys)) % size

    return Queue()


OBJECTIVE = ObjectiveOffer(
    "contrastive_queue",
    "contrastive_queue:queue",
    Settings,
    "the source's embedding of the same sample, among those in a queue (MoCo)",
    "He et al., Momentum Contrast, 2020",
    reads="hidden",
    forms=("hidden",),
    reduction="batchmean",
)


@kdmesh.hookimpl
def kdmesh_objectives() -> list[ObjectiveOffer]:
    """Offer the objective."""
    return [OBJECTIVE]
