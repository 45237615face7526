"""Merging classifiers that know different classes: the one distribution that explains best what each of them says.

Vongkulbhisal, Vinayavekhin and Visentini-Scarzanella, "Unifying Heterogeneous Classifiers with Distillation", 2019
(method CE-E). The step length: Sun and Tran-Dinh, "Generalized Self-Concordant Functions: A Recipe for Newton-type
Methods", 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import normalised
from kdmesh.builtin.consensus._partial import joined, known
from kdmesh.builtin.consensus.offers import UHCConfig
from kdmesh.contracts.rule import Rule
from kdmesh.signals.wide import widened
from kdmesh.spec.settings import checked_by

FLOOR = 1e-30  # least probability of a class that a source knows: keeps the optimum finite
RIDGE = 1e-12  # beside ones: the system is singular, as nothing fixes the scale of q


@checked_by(UHCConfig)
class UHC(Rule):
    """``argmin_q -sum_m sum_{l in L_m} p_m(l) log(q_l / sum_{k in L_m} q_k)``, where source m knows the classes L_m.

    With ``a_l = sum_m p_m(l)``, the optimum is ``q_l = a_l / sum_{m knows l} e^{s_m}``, where s, one number per source,
    minimises the convex ``sum_l a_l log sum_{m knows l} e^{s_m} - sum_m s_m``. That is found per sample by
    ``iterations`` Newton steps in float64, on the CPU where a device has none, each of the length ``log(1 + d) / d``
    with d the spread of the step, which never increases it. They start at the optimum for two sources and end, in
    tests, at rounding. Gradients are those of the optimum, taken through one more step from there.

    Nothing but shared classes ties the label sets together. Groups of sources that share none, not even through
    others, get the mass that `concat` gives them: with disjoint sets all of it is `concat`. A class that no present
    source knows gets 0. The order of sources changes rounding only.
    """

    def __init__(self, iterations: int = 32) -> None:
        super().__init__()
        self.iterations = iterations

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return distributions ``[B, C]``."""
        known_here = known(logits, present)
        merged = widened(joined(logits, known_here)) / self.temperature
        shown = known_here.to(merged.device)
        said = torch.where(shown, widened(values).clamp_min(FLOOR), 0.0)
        shared = torch.where(shown.sum(0) > 1, said, 0.0)  # a class of one source has no say in s
        fixed, scales = shared.detach(), _log(shared.detach().sum(-1))
        for _ in range(self.iterations):
            scales = scales + _step(fixed, shown, scales, fixed)
        scales = scales + _step(shared, shown, scales, fixed)
        return normalised(_mixed(said, shown, scales, merged)).to(values)


def _step(said: Tensor, shown: Tensor, scales: Tensor, fixed: Tensor) -> Tensor:
    """A damped Newton step ``[M, B]`` at ``scales [M, B]``; gradients pass to ``said``, as if at the optimum."""
    shares = torch.where(shown, (scales[..., None] - _log_mass(scales, shown)).exp(), 0.0)
    given = torch.stack([(said * share).sum(-1) for share in shares])  # what n says where m has a share [M, M, B]
    gradient = (given - given.transpose(0, 1)).sum(1)  # sum_l (a_l w_m - p_m), without its cancellation
    pull = torch.stack([(fixed.sum(0) * share * shares).sum(-1) for share in shares])
    ones = torch.eye(len(pull), dtype=pull.dtype, device=pull.device)
    pull = pull * (1 - ones[..., None])
    degree = pull.sum(1)
    root = torch.where(degree > 0, degree, 1.0).rsqrt()
    system = ones * (1 + RIDGE) - (root[:, None] * pull * root).permute(2, 0, 1)  # a graph's Laplacian, normalised
    step = -root * torch.linalg.solve(system, (root * gradient).T).T
    spread = (step.amax(0) - step.amin(0)).detach().clamp_min(FLOOR)
    return step * spread.log1p() / spread


def _mixed(said: Tensor, shown: Tensor, scales: Tensor, merged: Tensor) -> Tensor:
    """The classes' masses ``[B, C]``; a group of sources that share classes has the mass that ``merged`` gives it."""
    together = shown.to(said.dtype).transpose(0, 1)  # [B, M, C]
    reach = (together @ together.transpose(1, 2) > 0).to(said.dtype)
    for _ in range(len(said).bit_length()):
        reach = (reach @ reach > 0).to(said.dtype)
    group = (reach @ together > 0).transpose(0, 1)  # whether a class belongs to the group of a source [M, B, C]
    plain = said.sum(0) * (-_log_mass(scales, shown)).exp()
    wanted = merged.softmax(-1)
    scales = scales + _log((group * plain).sum(-1)) - _log((group * wanted).sum(-1))
    return said.sum(0) * (-_log_mass(scales, shown)).exp()


def _log_mass(scales: Tensor, shown: Tensor) -> Tensor:
    """``log sum_{m knows l} e^{s_m}`` for each class ``[B, C]``; 0 where no source knows it."""
    top = torch.where(shown, scales[..., None].detach(), -torch.inf).amax(0)
    top = torch.where(top.isfinite(), top, 0.0)
    total = torch.where(shown, (scales[..., None] - top).clamp(max=0.0).exp(), 0.0).sum(0)
    return top + torch.where(total > 0, total, 1.0).log()


def _log(mass: Tensor) -> Tensor:
    return mass.clamp_min(FLOOR).log()
