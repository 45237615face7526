"""Hints: a hidden layer of the student regresses one of the target, through a trainable adapter.

Romero, Ballas, Kahou, Chassang, Gatta and Bengio, "FitNets: Hints for Thin Deep Nets", 2014. The paper trains hints in
a stage of their own; libraries, and a flow here, add them to the other losses.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdmesh.builtin.objectives._base import elementmean, refuse_form
from kdmesh.builtin.objectives._numerics import at_least_float32, comparable, kept, same_size
from kdmesh.builtin.objectives.offers import HintConfig
from kdmesh.contracts.objective import Objective
from kdmesh.spec.settings import checked_by


@checked_by(HintConfig)
class Hint(Objective):
    """``F.mse_loss(r(h_s), h_t)``: the mean over samples and elements, as in mdistiller (the paper: half the sum).

    The adapter ``r`` is made by :meth:`setup`: a linear layer on the last axis of vectors ``[D]`` or tokens ``[N, D]``,
    a 1x1 convolution for maps ``[C, H, W]``, after average pooling of the larger map where sizes differ. It has neither
    normalisation nor activation (mdistiller's has both). Equal shapes need none unless ``adapter`` is `always`.
    """

    def __init__(self, adapter: Literal["auto", "always"] = "auto") -> None:
        super().__init__()
        self.always = adapter == "always"
        self.adapter: nn.Module = nn.Identity()

    def setup(self, student: torch.Size, target: torch.Size, **facts: Tensor | None) -> None:
        """Build the adapter for shapes without the batch axis; raise ValueError for shapes that none can join."""
        if student == target and not self.always:
            return
        if len(student) == len(target) == 3:
            self.adapter = nn.Conv2d(student[0], target[0], kernel_size=1)
        elif len(student) in (1, 2) and student[:-1] == target[:-1]:
            self.adapter = nn.Linear(student[-1], target[-1])
        else:
            raise ValueError(
                f"no adapter from {list(student)} to {list(target)}: a hint joins vectors [D], tokens [N, D] of one"
                " length, or feature maps [C, H, W]"
            )

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
    ) -> Tensor:
        """Compare hidden signals ``[B, ...]`` of the shapes that :meth:`setup` was given."""
        refuse_form(self, form, ("hidden",))
        # before the adapter, whose own gradient must not meet a NaN either
        student = kept(at_least_float32(student), weights)
        if student.dim() == target.dim() == 4:
            student, target = same_size(student, target)
        student, target = comparable(self.adapter(student), target, weights)
        return elementmean(F.mse_loss(student, target, reduction="none"), weights)
