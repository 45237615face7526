"""Distance of a layer to its class's prototype.

Tan, Long, Liu, Zhou, Lu, Jiang and Zhang, "FedProto: Federated Prototype Learning across Heterogeneous Clients", 2022.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives._base import batchmean, elementmean, refuse_form
from kdmesh.builtin.objectives._numerics import comparable, distance
from kdmesh.builtin.objectives.offers import PrototypeConfig
from kdmesh.contracts.objective import Objective
from kdmesh.spec.settings import checked_by


@checked_by(PrototypeConfig)
class Prototype(Objective):
    """``sum_d (h_i - c_{y_i})²``, averaged over samples, ``c_k`` being the mean of a layer over samples of class k.

    With ``per_element`` it is averaged over the layer too, as the published code has it: D times smaller. Samples of a
    class that nobody knows add nothing.
    """

    def __init__(self, per_element: bool = False) -> None:
        super().__init__()
        self.reduce = elementmean if per_element else batchmean

    def forward(  # type: ignore[override]  # with labels, as its offer says
        self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None, labels: Tensor
    ) -> Tensor:
        """Compare a layer ``[B, ...]`` with means ``[K, D]`` by ``labels [B]``; ``weights [K]``."""
        refuse_form(self, form, ("hidden",))
        known = None if weights is None else weights[labels]
        own, means = comparable(student.flatten(1), target.flatten(1)[labels], known)
        return distance(F.mse_loss, own, means, self.reduce, known)
