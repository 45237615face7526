"""What a criterion is: a score for each sample, of which the largest are chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Asked:
    """What is known of some rows (a sample each, or a word or token of one) without any held-out sample.

    Attributes:
        teachers: logits ``[M, n, C]`` of M teachers.
        student: logits ``[n, C]`` of the student; None where none is named.
        labels: ``[n]`` int64; None where there are none, or they are hidden.
    """

    teachers: Tensor
    student: Tensor | None = None
    labels: Tensor | None = None


class Criterion:
    """Scores samples. A subclass writes :meth:`rows`, or, where a sample's score depends on the others, ``samples``.

    ``needs``: `teachers` (one at least), `several` teachers, `student`. ``whole``: it writes :meth:`samples`.
    """

    needs: ClassVar[tuple[str, ...]] = ("teachers",)
    whole: ClassVar[bool] = False

    def rows(self, asked: Asked) -> Tensor:
        """A score for each row, ``[n]``. The score of a sample with several rows is their mean."""
        raise NotImplementedError(f"{type(self).__name__} must score rows")  # the one abstract method

    def samples(self, values: Tensor, seed: int) -> Tensor:
        """A score for each sample ``[N]``, of all of them: ``values [N, D]`` float32, what a model is given of each."""
        raise NotImplementedError(f"{type(self).__name__} must score samples")  # of those that are `whole`


@dataclass(frozen=True)
class Chosen:
    """A selection, best first. ``scores``: of each criterion by name, ``[k]``, in the order of ``ids [k]``."""

    ids: Tensor
    scores: dict[str, Tensor] = field(default_factory=dict)
