"""Contrastive distillation: of all samples, the target's embedding tells which one the student has seen.

Tian, Krishnan and Isola, "Contrastive Representation Distillation", 2020; published code: RepDistiller.
"""

from __future__ import annotations

from math import log
from typing import Literal

import torch
from kdmesh.errors import MeshError
from kdmesh.objectives import Objective, refuse_form
from torch import Tensor, nn
from torch.nn import functional as F

from kdmesh_relational._sides import sides

EPS = 1e-7  # the published code's, beside K / M


class CRD(Objective):
    """``-mean_i sum over both sides of (log h(i, i) + sum_k log(1 - h(i, n_k)))``: noise-contrastive estimation.

    ``h = e^s / (e^s + K / M)`` with ``s = g_s · g_t / temperature``; ``g`` is the signal, flattened to ``[B, D]``,
    mapped to ``dim`` numbers by a trainable linear layer per side, and divided by its norm. One sum has the student's
    embedding of sample i against the target's of others, one the target's against the student's: the paper has one
    expectation over pairs and does not say whose partners are drawn, its code adds the two.

    M samples; K = ``count`` negatives each, or as many as the sample with the fewest candidates has, if that is less.
    They are drawn in every batch anew, without replacement, from the samples of all other classes or, with
    `other_sample`, from all others (where candidates are too few, the code draws with replacement).

    Embeddings of others come from a memory per side, as the last batches left them: ``m <- normalised(momentum * m +
    (1 - momentum) * g)`` after the loss, in training only (module in train mode, gradients on). It begins with random
    entries. Linear layers, memory and the place in the sequence of draws are in the state dict. A silent sample has no
    loss and does not enter the memory: the others' loss is as if it were not there. Bytes grow with ``M (dim + B)``.

    ``faithful``: `paper` takes both halves of the pair (i, i) from the batch. `code` takes the second from the memory,
    divides ``e^s`` by ``Z = M * mean e^s``, one number per side, estimated in the first batch and kept, and adds 1e-7
    to ``K / M`` in denominators. It is the default: it is what was published, and its loss begins around
    ``2 (1 + log(K + 1))``. Without Z every negative passes for a pair at first: ``2 K log(1 + M / K)``.
    """

    ids: Tensor
    classes: Tensor
    student_memory: Tensor
    target_memory: Tensor
    log_z: Tensor
    seed: Tensor
    calls: Tensor

    def __init__(
        self,
        dim: int = 128,
        count: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        negatives: Literal["other_class", "other_sample"] = "other_class",
        faithful: Literal["paper", "code"] = "code",
    ) -> None:
        super().__init__()
        self.dim, self.count, self.temperature, self.momentum = dim, count, temperature, momentum
        self.by_class, self.as_code = negatives == "other_class", faithful == "code"

    def setup(
        self, student: torch.Size, target: torch.Size, *, labels: Tensor | None = None, ids: Tensor | None = None
    ) -> None:
        """Make embeddings and memory for the samples ``ids [M]`` of a stream, of classes ``labels [M]``.

        Raises MeshError where a sample has no other to be told from.
        """
        if ids is None or labels is None:
            raise ValueError("CRD needs the samples of its stream: ids= and labels=")
        known, places = ids.unique(return_inverse=True)
        self.register_buffer("ids", known)
        self.register_buffer("classes", labels.new_zeros(len(known)).index_copy(0, places, labels))
        alike = int(self.classes.unique(return_counts=True)[1].max()) if self.by_class else 1
        if alike == len(known):
            raise MeshError(
                "CRD finds no negatives: all samples of this stream are of one class",
                instead="a stream with more classes, or `negatives: other_sample` and more than one sample",
            )
        self.count = min(self.count, len(known) - alike)
        self.embed_student = nn.Linear(student.numel(), self.dim)
        self.embed_target = nn.Linear(target.numel(), self.dim)
        bound = (3 / self.dim) ** 0.5  # entries of length 1 on average, as in the published code
        for name in ("student_memory", "target_memory"):
            self.register_buffer(name, torch.empty(len(known), self.dim).uniform_(-bound, bound))
        if self.as_code:
            self.register_buffer("log_z", torch.full((2,), torch.nan))  # until the first batch
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_buffer("calls", torch.tensor(0))

    def forward(
        self,
        student: Tensor,
        target: Tensor,
        *,
        ids: Tensor,
        form: str = "hidden",
        weights: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare hidden signals ``[B, ...]`` of samples ``ids [B]``; ``labels`` are known from :meth:`setup`.

        Raises ValueError for samples that were not among those of :meth:`setup`.
        """
        refuse_form(self, form, ("hidden",))
        batch = len(student)
        student, target = sides(student, target, weights)
        if weights is not None:
            heard = weights != 0
            student, target, ids, weights = student[heard], target[heard], ids[heard], weights[heard]
        rows = self._rows(ids)
        own = F.normalize(self.embed_student(student.flatten(1)))
        other = F.normalize(self.embed_target(target.flatten(1)))
        drawn = self._draw(rows)
        near = (own * other).sum(1, keepdim=True)
        learns = self.training and torch.is_grad_enabled()
        losses = torch.zeros_like(near[:, 0])
        for side, (anchor, memory) in enumerate(((own, self.target_memory), (other, self.student_memory))):
            similar = anchor @ memory.T  # of all M, gathered after: less memory than B K vectors
            positive = similar.gather(1, rows[:, None]) if self.as_code else near
            losses = losses + self._side(torch.cat([positive, similar.gather(1, drawn)], 1), side, learns)
        if learns:
            self._remember(rows, own, other)
        return (losses if weights is None else losses * weights.to(losses.dtype)).sum() / batch

    def _rows(self, ids: Tensor) -> Tensor:
        """Where samples stand in the memory."""
        rows = torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        strange = ids[self.ids[rows] != ids]
        if len(strange):
            raise ValueError(f"CRD has no memory of sample {strange[0].item()}: setup named {len(self.ids)} others")
        return rows

    def _draw(self, rows: Tensor) -> Tensor:
        """Rows of the negatives ``[B, K]``, by a generator of its own: the same after the same calls."""
        places = torch.arange(len(self.ids), device=rows.device)
        allowed = self.classes != self.classes[rows, None] if self.by_class else places != rows[:, None]
        if not len(rows):
            return places.new_empty(0, self.count)
        generator = torch.Generator(rows.device).manual_seed(int(self.seed) + int(self.calls))
        return torch.multinomial(allowed.float(), self.count, generator=generator)

    def _side(self, similar: Tensor, side: int, learns: bool) -> Tensor:
        """The loss of each sample from similarities ``[B, 1 + K]``, of which the first is that of the pair."""
        scores = similar / self.temperature
        if self.as_code and len(scores):
            z = scores.detach().flatten().logsumexp(0) - log(scores.numel()) + log(len(self.ids))
            z = torch.where(self.log_z[side].isnan(), z, self.log_z[side])
            if learns:
                self.log_z[side] = z
            scores = scores - z
        noise = self.count / len(self.ids)
        eps = EPS if self.as_code else 0.0
        odds = scores - log(noise + eps)
        return -F.logsigmoid(odds[:, 0]) - (F.logsigmoid(-odds[:, 1:]) + log(noise / (noise + eps))).sum(1)

    @torch.no_grad()
    def _remember(self, rows: Tensor, own: Tensor, other: Tensor) -> None:
        """Move the memory towards a batch; into new tensors, since the loss's graph still holds the old ones."""
        for name, seen in (("student_memory", own), ("target_memory", other)):
            memory: Tensor = getattr(self, name)
            mixed = self.momentum * memory[rows] + (1 - self.momentum) * seen
            setattr(self, name, memory.index_copy(0, rows, F.normalize(mixed).to(memory.dtype)))
        self.calls += 1
