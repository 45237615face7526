"""The objectives, ready for any loop (``from kdmesh.objectives import ForwardKL``), and what to write one with."""

from __future__ import annotations

from kdmesh.builtin.objectives._base import Objective, Tempered, batchmean, elementmean, refuse_form
from kdmesh.builtin.objectives._numerics import at_least_float32, comparable, kept, log_probs, probs
from kdmesh.builtin.objectives.attention_transfer import AttentionTransfer
from kdmesh.builtin.objectives.cross_entropy import CrossEntropy
from kdmesh.builtin.objectives.forward_kl import ForwardKL
from kdmesh.builtin.objectives.hint import Hint
from kdmesh.builtin.objectives.jsd import JSD
from kdmesh.builtin.objectives.mae import MAE
from kdmesh.builtin.objectives.mse import MSE
from kdmesh.builtin.objectives.reverse_kl import ReverseKL

__all__ = [
    "JSD",
    "MAE",
    "MSE",
    "AttentionTransfer",
    "CrossEntropy",
    "ForwardKL",
    "Hint",
    "Objective",
    "ReverseKL",
    "Tempered",
    "at_least_float32",
    "batchmean",
    "comparable",
    "elementmean",
    "kept",
    "log_probs",
    "probs",
    "refuse_form",
]
