"""Losses over a large vocabulary, without the matrix of logits ``[N, V]`` of student or target.

Rows are made a chunk at a time. Each chunk's loss and its gradient with respect to the chunk's logits are computed at
once, in place, and the gradient goes straight into those of the hidden rows and of the layer: the backward pass has
nothing left to do. Two sizes matter: a chunk is as large as memory allows, because every product reads the layer anew;
within it, blocks of rows are worked on while they are in the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from kdmesh.builtin.objectives._gathered import gatherer
from kdmesh.signals.crossing import LARGE
from kdmesh.signals.lazy import FactoredLogits, Lazy, blocks, dense, faced, taken

if TYPE_CHECKING:
    from collections.abc import Callable

    Facts = dict[str, Any]

CHUNK = 13 * 2**22  # elements of a chunk's buffers together: 218 MB of float32


class HasGradient(Protocol):
    """What an objective gives for this: its loss, and one with the gradient at the student's logits, of some rows."""

    @property
    def forward(self) -> Callable[..., Tensor]:
        """``forward(student, target, *, form, weights, **facts)``: the loss, a scalar."""

    def loss_and_gradient(
        self, logits: Tensor, target: Tensor, form: str, factors: Tensor, spare: Tensor, **facts: Tensor | None
    ) -> Tensor:
        """``sum_i factors_i l_i`` of a few rows, whose gradient is left in ``logits``."""


def lazily(
    objective: HasGradient,
    student: Tensor | Lazy,
    target: Tensor | Lazy,
    *,
    form: str,
    weights: Tensor | None,
    **facts: Any,
) -> Tensor:
    """Compare signals of which at least one is lazy, by an objective whose samples do not depend on each other.

    Large ones are compared chunk by chunk. Small ones are made first, and so are those where a gradient passes through
    the target or the weights.
    """
    if not _in_chunks(student, target, weights):
        student, target = faced(student, target)
        return objective.forward(dense(student), dense(target), form=form, weights=weights, **facts)
    if target.shape != (student.shape[:1] if form == "labels" else student.shape):
        raise ValueError(f"student {list(student.shape)} and target {list(target.shape)} differ in shape")
    dtype = torch.promote_types(student.dtype, torch.float32)
    factors = torch.full((len(student),), 1 / len(student), dtype=dtype, device=student.device)
    if weights is not None:
        factors *= weights.detach().to(dtype)
        counted = weights.nonzero().squeeze(1)  # a GPU waits for how many there are
        if len(counted) < len(student):  # samples of weight 0 are left out: their NaNs must not spread
            student, target, factors = taken(student, counted), taken(target, counted), factors[counted]
            facts = {name: _some(value, counted) for name, value in facts.items()}
    if not len(student):
        student, target = faced(student, target)
        return objective.forward(dense(student), dense(target), form=form, weights=None, **facts)
    leaves = (student.hidden, *student.whole) if isinstance(student, FactoredLogits) else (student,)
    wanted = [torch.is_grad_enabled() and isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves]
    compute = _Pass(objective, student, target, form, factors, facts, wanted)
    loss: Tensor = _Known.apply(compute, *leaves)
    return loss


def _some(fact: Any, rows: slice | Tensor) -> Any:
    """Some rows of a fact about each; plain numbers are about all."""
    return fact[rows] if isinstance(fact, Tensor) else fact


def _in_chunks(student: Tensor | Lazy, target: Tensor | Lazy, weights: Tensor | None) -> bool:
    """Whether the signals are large, and gradients pass only where chunks can gather them."""
    through = target.requires_grad or (weights is not None and weights.requires_grad)
    apart = student.requires_grad and not isinstance(student, Tensor | FactoredLogits)
    return student.shape.numel() > LARGE and not through and not apart


class _Pass:
    """One pass over all chunks: ``sum_i factors_i l_i`` and its gradients with respect to the student's leaves."""

    def __init__(
        self,
        objective: HasGradient,
        student: Tensor | Lazy,
        target: Tensor | Lazy,
        form: str,
        factors: Tensor,
        facts: Facts,
        wanted: list[bool],
    ) -> None:
        self.objective, self.student, self.target, self.form = objective, student, target, form
        self.factors, self.facts, self.wanted = factors, facts, wanted

    def __call__(self) -> tuple[Tensor, list[Tensor | None]]:
        """The loss, and a gradient (or None) for each leaf."""
        target, width, total = self.target, self.student.shape[1], self.factors.new_zeros(())
        most = self._most()
        student = gatherer(self.student, self.wanted, most, self.factors.dtype)
        partial = isinstance(target, Lazy) and target.partial
        most_made = most if isinstance(target, Lazy) and not partial else 0
        buffer = torch.empty((most_made, width), dtype=target.dtype, device=target.device)
        cut = blocks(most, width, self.student.device)
        spare = self.factors.new_empty((4, next(cut)[1], width))
        for start in range(0, len(self.student), most):
            stop = min(start + most, len(self.student))
            logits = student.rows(start, stop)
            if isinstance(target, Lazy) and target.partial:
                for a, b in blocks(stop - start, width, self.student.device):
                    total += self._partial(target, start + a, start + b, logits[a:b])
                student.gather(start, stop, logits)
                continue
            wanted = (
                target.rows(start, stop, buffer[: stop - start]) if isinstance(target, Lazy) else target[start:stop]
            )
            for a, b in blocks(stop - start, width, self.student.device):
                total += self._block(slice(start + a, start + b), logits[a:b], wanted[a:b], spare[:, : b - a])
            student.gather(start, stop, logits)
        return total, student.gradients()

    def _most(self) -> int:
        """Rows of a chunk: as many as the buffers may hold, spread evenly."""
        buffers = 1 + (self.target.parts if isinstance(self.target, Lazy) else 0)
        buffers += self.student.dtype != self.factors.dtype
        chunks = -(-len(self.student) // max(1, CHUNK // (buffers * self.student.shape[1])))
        return -(-len(self.student) // chunks)

    def _partial(self, target: Lazy, start: int, stop: int, logits: Tensor) -> Tensor:
        """Leave the gradient of some rows' loss in their logits, where few of their columns are compared."""
        at = slice(start, stop)
        given = {name: _some(value, at) for name, value in self.facts.items()}
        with torch.enable_grad():
            leaf = logits.detach().clone().requires_grad_()
            own, theirs = target.facing(leaf, start, stop)
            loss = self.objective.forward(own, theirs, form=self.form, weights=self.factors[at], **given) * len(leaf)
        logits.copy_(torch.autograd.grad(loss, leaf)[0])
        return loss.detach()

    def _block(self, at: slice, logits: Tensor, target: Tensor, spare: Tensor) -> Tensor:
        """Leave the gradient of some rows' loss in their logits."""
        given = {name: _some(value, at) for name, value in self.facts.items()}
        counts = not target.is_inference()  # of such a tensor torch does not count the changes
        before = logits._version, target._version if counts else 0
        loss = self.objective.loss_and_gradient(logits, target, self.form, self.factors[at], spare, **given)
        if not isinstance(loss, Tensor) or loss.dim() or loss.dtype != self.factors.dtype:
            what = f"{tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"its loss_and_gradient gave {what}, not a loss: no axes, {self.factors.dtype}")
        if logits._version == before[0]:
            raise ValueError("its loss_and_gradient left no gradient in `logits`")
        if counts and target._version != before[1]:
            raise ValueError("its loss_and_gradient changes the target, which it is to leave as it is")
        return loss


class _Known(torch.autograd.Function):
    """A loss whose gradients are computed with it."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Any], *leaves: Tensor | None) -> Tensor:
        loss, ctx.gradients = compute()
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("a loss computed in chunks goes backward once: its gradients are handed out")
        known, ctx.gradients = ctx.gradients, None  # whoever gets them owns them, and need not copy
        if gradient.device.type != "cpu" or gradient.item() != 1:  # on a GPU reading it would wait
            for part in known:
                if part is not None:
                    part.mul_(gradient)
        return None, *known
