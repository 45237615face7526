"""Cross-entropy with labels or with a soft target.

Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture for Computer
Vision", 2016. Soft targets: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives._base import Tempered, batchmean
from kdmesh.builtin.objectives._chunked import lazily
from kdmesh.builtin.objectives._gradients import Rows, expected, soften
from kdmesh.builtin.objectives._numerics import at_least_float32, kept, probs
from kdmesh.builtin.objectives.offers import BALANCED, CrossEntropyConfig
from kdmesh.errors import MeshError
from kdmesh.signals.lazy import Lazy
from kdmesh.signals.wide import widened
from kdmesh.spec.settings import checked_by

# torch drops labels of -100 from numerator and denominator; here a sample without a label has weight 0 instead
IGNORE_NOTHING = torch.iinfo(torch.int64).min


@checked_by(CrossEntropyConfig)
class CrossEntropy(Tempered):
    """Cross-entropy in nats, batchmean.

    - `labels`: ``F.cross_entropy(s, y, label_smoothing=label_smoothing)``, at T = 1 and unscaled whatever the
      temperature. With ``class_weights`` c a sample counts as much as its class: ``sum_i c[y_i] l_i / B``; `balanced`
      ones are ``n / (K n_c)`` of the n labels that :meth:`setup` is given, n_c of them of class c, one of K with any
      (King and Zeng, "Logistic Regression in Rare Events Data", 2001, as scikit-learn counts them). Labels lie in ``[0,
      C)``; any other label of a sample whose weight is not 0 is an error of torch.
    - `logits`: ``F.cross_entropy(s / T, softmax(t / T)) * T**2``; `probs`: the same with the target as given. It is the
      forward KL plus the target's entropy, so both train a student alike. Smoothing and class weights do
      not apply.

    Infinite where a label, smoothing (which gives every class mass) or the target asks for a class with a student's
    logit of -inf.
    """

    closed_form = True

    unbounded = True
    forms: ClassVar[tuple[str, ...]] = ("labels", "probs", "logits")

    def __init__(
        self,
        label_smoothing: float = 0.0,
        temperature: float = 1.0,
        t2_scale: bool = True,
        class_weights: list[float] | str | None = None,
    ) -> None:
        super().__init__(temperature, t2_scale)
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self._plain: CrossEntropy | None = None
        self._by_class: Tensor
        self.asks_labels = class_weights == BALANCED
        if class_weights is not None:
            self._plain = CrossEntropy(label_smoothing)
            given = class_weights if isinstance(class_weights, list) else []
            self.register_buffer("_by_class", torch.tensor(given), persistent=False)
        self.distribution = temperature

    def setup(
        self, student: torch.Size, target: torch.Size, labels: Tensor | None = None, **facts: Tensor | None
    ) -> None:
        """There is a class weight for each column; balanced ones are counted, 0 for a class without a sample."""
        if self.asks_labels:
            if labels is None:
                raise MeshError(
                    "balanced class weights are counted from the classes of a stream, and here are none to count",
                    instead="`class_weights` with one number per class, or leave it out",
                )
            counts = widened(labels.bincount(minlength=student[0]))
            balanced = (len(labels) / (counts > 0).sum() / counts).where(counts > 0, 0)
            self._by_class = balanced.to(labels.device, torch.float32)
        elif self.class_weights is not None and len(self.class_weights) != student[0]:
            raise MeshError(
                f"{len(self.class_weights)} class weights for {student[0]} classes",
                instead="`class_weights` with one number per class, in the order that `kdmesh check` prints",
            )

    def forward(
        self, student: Tensor | Lazy, target: Tensor | Lazy, *, form: str = "labels", weights: Tensor | None = None
    ) -> Tensor:
        """Compare logits ``[B, C]`` with labels ``[B]`` or a distribution ``[B, C]``."""
        if form != "labels":
            return super().forward(student, target, form=form, weights=weights)
        if self._plain is not None and isinstance(target, Tensor):
            if not len(self._by_class):
                raise MeshError("balanced class weights were not counted", instead="setup(..., labels=...) beforehand")
            own = self._by_class[target]
            weights = own if weights is None else own * weights
            return self._plain.forward(student, target, form=form, weights=weights)
        if isinstance(student, Lazy) or isinstance(target, Lazy):
            return lazily(self, student, target, form=form, weights=weights)
        if not len(target):
            return at_least_float32(student).sum()
        losses = F.cross_entropy(
            kept(at_least_float32(student), weights),
            kept(target, weights),
            ignore_index=IGNORE_NOTHING,
            label_smoothing=self.label_smoothing,
            reduction="mean" if weights is None else "none",
        )
        return losses if weights is None else batchmean(losses, weights)

    def report(self) -> dict[str, float]:
        """The class weights that were counted, by the number of the class."""
        return {f"class_weight_{c}": w for c, w in enumerate(self._by_class.tolist())} if self.asks_labels else {}

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``-p log q``."""
        return -(probs(target, form, self.temperature) * log_q)

    def gradient(self, rows: Rows) -> Tensor:
        """``q sum_v p - p``."""
        losses = expected(rows.p, rows.log_q).neg_()
        rows.q.mul_(rows.p.sum(-1, keepdim=True)).sub_(rows.p)
        return losses

    def loss_and_gradient(
        self, logits: Tensor, target: Tensor, form: str, factors: Tensor, spare: Tensor, **facts: Tensor | None
    ) -> Tensor:
        """With labels the gradient is ``q - (1 - ε) onehot - ε / C``."""
        if form != "labels":
            return super().loss_and_gradient(logits, target, form, factors, spare, **facts)
        classes, rows = logits.shape[1], torch.arange(len(target), device=target.device)
        if target.device.type == "cpu" and bool(((target < 0) | (target >= classes)).any()):  # a GPU would wait
            raise IndexError(f"labels out of bounds: they must be in [0, {classes})")
        q, smooth = spare[0], self.label_smoothing
        log_q = soften(logits, 1.0, q, logits)
        losses = -log_q.gather(1, target[:, None]).squeeze(1)  # on a GPU it refuses labels out of bounds
        if smooth:
            losses = (1 - smooth) * losses - smooth * log_q.mean(-1)
            q.sub_(smooth / classes)
        q[rows, target] -= 1 - smooth
        torch.mul(q, factors[:, None], out=logits)
        return torch.dot(losses, factors)
