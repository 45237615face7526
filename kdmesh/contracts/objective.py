"""The interface of an objective: the engine calls nothing else, and it works in anyone's own loop."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

RENAMED = {"descend": "loss_and_gradient", "slope": "gradient"}
"""Methods that a subclass may still write under an old name: both go away in 0.3."""


class Objective(nn.Module):
    """A loss between a student's own signal and a target.

    ``forward(student, target, *, form="logits", weights=None) -> scalar``

    - ``student``: logits ``[B, C]`` (or a hidden signal ``[B, ...]``), with gradient.
    - ``target``: in one of the ``forms`` its offer names: ``logits [B, C]``, ``probs [B, C]`` (already at this
      objective's temperature; never re-tempered), ``labels [B]`` (int64), ``hidden [B, ...]``. Not detached here: who
      draws the flow decides (`detach`).
    - ``weights``: per-sample factors ``[B]`` or None. The loss is then ``sum_i w_i l_i / B``; samples of weight 0
      contribute neither to it nor to a gradient, whatever their values (NaN and infinite ones included).

    Reduction is `batchmean` throughout: sum over classes, mean over samples. Every objective of its own file states its
    formula. With ``weights=None`` an objective must use the plain expression of its docstring, bit for bit. No samples
    are a loss of 0.

    ``student`` and ``target`` may be logits that are not made yet (:class:`kdmesh.signals.lazy.Lazy`) where an
    objective hands such to :func:`kdmesh.objectives.lazily`, which calls it with tensors, chunk by chunk if they are
    large. Each sample's loss must then be its own, whatever the others are.
    """

    distribution: float | None = None
    """The temperature T, if logits as the target and their ``softmax(z / T)`` as `probs` are one thing, bit for bit.

    The softmax of a source that several flows read is then computed once for all of them.
    """

    averages = "rows"
    """What the loss is a mean over: `rows`, or `texts`, each of which counts once, however many rows it has.

    Where batches are accumulated, each has the share of the update that it has of these.
    """

    asks_labels = False
    """Whether :meth:`setup` of a flow from labels is given them all, though the offer needs none beside the target."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Take methods under their old names, with a warning."""
        super().__init_subclass__(**options)
        for old, new in RENAMED.items():
            if old in cls.__dict__:
                said = f"{cls.__name__}.{old} is now called {new}; the old name goes away in kdmesh 0.3"
                warnings.warn(said, DeprecationWarning, stacklevel=2)
                setattr(cls, new, cls.__dict__[old])
                if old == "slope" and "closed_form" not in cls.__dict__:
                    setattr(cls, "closed_form", True)  # noqa: B010  # as it was found before there was such a flag

    def setup(self, student: torch.Size, target: torch.Size, **facts: Tensor | None) -> None:
        """Build trainable adapters for these shapes (without the batch axis). Called once, before training, seeded.

        ``facts``: what the offer ``needs``, of the whole stream: ``labels [N]``, ``ids [N]``; ``labels [N]`` also where
        ``asks_labels`` and these are classes of the data, as the student's columns count them.
        """

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "logits", weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss, a scalar of the student's dtype and at least float32; it may be of float64."""
        raise NotImplementedError(f"{type(self).__name__} must compute a loss")  # the one abstract method

    def report(self) -> dict[str, float]:
        """Figures about what was compared so far, by name (a coverage, say); what they count lives in buffers.

        Finite numbers, no tensors; what is not known yet is left out.
        """
        return {}

    def loss_and_gradient(
        self, logits: Tensor, target: Tensor, form: str, factors: Tensor, spare: Tensor, **facts: Tensor | None
    ) -> Tensor:
        """Return ``sum_i factors_i l_i`` of a few rows and leave its gradient in ``logits [r, V]``, by autograd.

        ``spare [4, r, V]``: memory to work in. The target must stay as it is.
        """
        with torch.enable_grad():
            leaf = logits.detach().clone().requires_grad_()
            loss = self.forward(leaf, target, form=form, weights=factors, **facts) * len(leaf)
        logits.copy_(torch.autograd.grad(loss, leaf)[0])
        return loss.detach()

    def descend(self, *args: Any, **facts: Any) -> Tensor:
        """The old name of :meth:`loss_and_gradient`, for what calls it of a base class; goes away in 0.3."""
        return Objective.loss_and_gradient(self, *args, **facts)
