"""Co-teaching: where labels are noisy, each of two networks learns from the rows that the other finds easy.

Han, Yao, Yu, Niu, Xu, Hu, Tsang and Sugiyama, "Co-teaching: Robust Training of Deep Neural Networks with Extremely
Noisy Labels", NeurIPS 2018, arXiv 1804.06872.

The gate gives each row a factor: `of` names the agent whose losses it is given. The mesh shows what a strategy is for:
one line draws two flows that mirror each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

import kdmesh
from kdmesh.offers import Config, GateOffer, StrategyOffer
from kdmesh.strategies import Canvas


class EasySettings(Config):
    """Settings of the gate."""

    forget: float = Field(0.2, ge=0, lt=1, description="share of a batch that is left out in the end: the noise rate")
    epochs: int = Field(10, ge=1, description="epochs in which the share grows from 0 to that")


class Settings(EasySettings):
    """Settings of the strategy."""

    peers: list[str] = Field(min_length=2, max_length=2, description="the two agents")


@dataclass(frozen=True, kw_only=True)
class CoTeaching:
    """The labels of both, gated by each other's losses."""

    peers: list[str]
    forget: float
    epochs: int

    def draw(self, canvas: Canvas) -> None:
        """Draw the two flows."""
        one, other = canvas.learners(self.peers, "peers")
        for name, judge in ((one, other), (other, one)):
            gate = {"easy_for_peer": {"of": judge, "forget": self.forget, "epochs": self.epochs}}
            canvas.flow("labels", name, objective=canvas.label_objective, gate=gate)


def easy(forget: float, epochs: int) -> Any:
    """The gate; torch is imported here, not where the offers are read."""
    import torch
    from torch import Tensor

    from kdmesh.gates import Gate

    class Easy(Gate):
        """Of the n rows that are compared the ``k = max(1, int(R(e) n))`` of smallest loss have the factor ``n / k``.

        ``R(e) = 1 - forget min(e / epochs, 1)`` in epoch e, from 0; all other rows have 0. So where all are compared
        the loss is the mean over the rows kept.
        """

        def forward(self, *, losses: Tensor, counted: Tensor, epoch: int) -> Tensor:
            """``losses [B]``: the loss of each row for the agent that `of` names; ``counted [B]``: who has one."""
            rows = counted.nonzero()[:, 0]
            kept = max(1, int((1 - forget * min(epoch / epochs, 1)) * len(rows)))
            factors = torch.zeros_like(losses)
            factors[rows[losses[rows].argsort(stable=True)[:kept]]] = len(rows) / kept
            return factors

    return Easy()


PAPER = "Han et al., Co-teaching, 2018"
GATE = GateOffer(
    "easy_for_peer",
    "co_teaching:easy",
    EasySettings,
    "the rows of a batch whose loss is smallest, fewer with the epochs",
    PAPER,
    needs=("losses", "counted", "epoch"),
    rows=True,
)
STRATEGY = StrategyOffer(
    "co_teaching", "co_teaching:CoTeaching", Settings, "two agents choose each other's rows", PAPER
)


@kdmesh.hookimpl
def kdmesh_gates() -> list[GateOffer]:
    """Offer the gate."""
    return [GATE]


@kdmesh.hookimpl
def kdmesh_strategies() -> list[StrategyOffer]:
    """Offer the strategy."""
    return [STRATEGY]
