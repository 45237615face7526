"""Where the gradients of a loss in chunks go: to hidden rows and a layer, or to logits that exist already."""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.signals.lazy import FactoredLogits, Lazy


def gatherer(student: Tensor | Lazy, wanted: list[bool], most: int, dtype: torch.dtype) -> _Logits | _Chunks:
    """What makes a student's rows, at most ``most`` at a time, and gathers gradients where they are wanted."""
    if isinstance(student, Tensor):
        return _Logits(student, wanted[0], most, dtype)
    return (
        _Layer(student, wanted, most, dtype) if isinstance(student, FactoredLogits) else _Chunks(student, most, dtype)
    )


class _Logits:
    """Logits ``[N, V]`` that exist: their gradient is a matrix like them, and the only one."""

    def __init__(self, logits: Tensor, wanted: bool, most: int, dtype: torch.dtype) -> None:
        self.logits, self.wanted = logits, wanted
        self.gradient = torch.empty_like(logits) if wanted else None
        self.buffer = torch.empty((most, logits.shape[1]), dtype=dtype, device=logits.device)

    def rows(self, start: int, stop: int) -> Tensor:
        """A copy of rows, to be overwritten."""
        return self.buffer[: stop - start].copy_(self.logits[start:stop])

    def gather(self, start: int, stop: int, gradients: Tensor) -> None:
        """Take in the gradient of rows."""
        if self.gradient is not None:
            self.gradient[start:stop] = gradients

    def gradients(self) -> list[Tensor | None]:
        """Of the logits."""
        return [self.gradient]


class _Chunks:
    """Rows that are made, and through which no gradient passes."""

    def __init__(self, student: Lazy, most: int, dtype: torch.dtype) -> None:
        self.student = student
        self.made = torch.empty((most, student.shape[1]), dtype=student.dtype, device=student.device)
        self.buffer = self.made if student.dtype == dtype else torch.empty_like(self.made, dtype=dtype)

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows in at least float32, to be overwritten."""
        made = self.student.rows(start, stop, self.made[: stop - start])
        return made if self.buffer is self.made else self.buffer[: stop - start].copy_(made)

    def gather(self, start: int, stop: int, gradients: Tensor) -> None:
        """Nothing is wanted."""

    def gradients(self) -> list[Tensor | None]:
        """None."""
        return [None]


class _Layer(_Chunks):
    """Hidden rows and a layer. The layer's gradient adds up over chunks, in at least float32."""

    def __init__(self, student: FactoredLogits, wanted: list[bool], most: int, dtype: torch.dtype) -> None:
        super().__init__(student, most, dtype)
        self.hidden, self.weight = student.hidden.detach(), student.weight.detach()
        self.of_hidden = torch.empty_like(self.hidden) if wanted[0] else None
        weight, bias = student.whole
        self.of_weight = self._zeros_beyond(weight, dtype) if wanted[1] else None
        self.of_bias = self._zeros_beyond(bias, dtype) if wanted[2] and bias is not None else None

    def _zeros_beyond(self, part: Tensor, dtype: torch.dtype) -> Tensor:
        """Room for a gradient; columns that are not compared have none."""
        gradient = torch.empty_like(part, dtype=dtype)
        gradient[len(self.weight) :] = 0
        return gradient

    def gather(self, start: int, stop: int, gradients: Tensor) -> None:
        """Add what the gradient of rows of logits is to the rows, the layer and its bias."""
        again = float(start > 0)  # the first chunk overwrites
        if self.of_weight is not None:
            part = self.of_weight[: len(self.weight)]
            torch.addmm(part, gradients.t(), self.hidden[start:stop].to(gradients.dtype), beta=again, out=part)
        if self.of_bias is not None:
            part = self.of_bias[: len(self.weight)]
            torch.add(gradients.sum(0), part, out=part) if start else torch.sum(gradients, 0, out=part)
        if self.of_hidden is not None:
            if self.buffer is not self.made:  # a product in half precision
                gradients = self.made[: stop - start].copy_(gradients)
            torch.mm(gradients, self.weight, out=self.of_hidden[start:stop])

    def gradients(self) -> list[Tensor | None]:
        """Of the hidden rows, the whole layer and its bias, in the precision of each."""
        found = (self.of_hidden, self.of_weight, self.of_bias)
        return [None if part is None else part.to(self.hidden.dtype) for part in found]
