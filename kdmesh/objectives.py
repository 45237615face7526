"""The objectives, ready for any loop (``from kdmesh.objectives import ForwardKL``), and what to write one with."""

from __future__ import annotations

from kdmesh.builtin.objectives._base import Tempered, batchmean, elementmean, refuse_form
from kdmesh.builtin.objectives._chunked import lazily
from kdmesh.builtin.objectives._numerics import at_least_float32, comparable, floored, kept, log_probs, possible, probs
from kdmesh.builtin.objectives._tokens import Answers, token_log_probs
from kdmesh.builtin.objectives.aligned import Aligned
from kdmesh.builtin.objectives.attention_kl import AttentionKL
from kdmesh.builtin.objectives.attention_mse import AttentionMSE
from kdmesh.builtin.objectives.attention_transfer import AttentionTransfer
from kdmesh.builtin.objectives.binary_cross_entropy import BinaryCrossEntropy
from kdmesh.builtin.objectives.binary_kl import BinaryKL
from kdmesh.builtin.objectives.cross_entropy import CrossEntropy
from kdmesh.builtin.objectives.forward_kl import ForwardKL
from kdmesh.builtin.objectives.hint import Hint
from kdmesh.builtin.objectives.in_batch import InBatch
from kdmesh.builtin.objectives.info_nce import InfoNCE
from kdmesh.builtin.objectives.jsd import JSD
from kdmesh.builtin.objectives.mae import MAE
from kdmesh.builtin.objectives.margin_mse import MarginMSE
from kdmesh.builtin.objectives.mse import MSE
from kdmesh.builtin.objectives.prototype import Prototype
from kdmesh.builtin.objectives.reverse_kl import ReverseKL
from kdmesh.builtin.objectives.skewed_kl import SkewedKL
from kdmesh.builtin.objectives.skewed_reverse_kl import SkewedReverseKL
from kdmesh.builtin.objectives.total_variation import TotalVariation
from kdmesh.builtin.objectives.universal import Universal
from kdmesh.contracts.objective import Objective

__all__ = [
    "JSD",
    "MAE",
    "MSE",
    "Aligned",
    "Answers",
    "AttentionKL",
    "AttentionMSE",
    "AttentionTransfer",
    "BinaryCrossEntropy",
    "BinaryKL",
    "CrossEntropy",
    "ForwardKL",
    "Hint",
    "InBatch",
    "InfoNCE",
    "MarginMSE",
    "Objective",
    "Prototype",
    "ReverseKL",
    "SkewedKL",
    "SkewedReverseKL",
    "Tempered",
    "TotalVariation",
    "Universal",
    "at_least_float32",
    "batchmean",
    "comparable",
    "elementmean",
    "floored",
    "kept",
    "lazily",
    "log_probs",
    "possible",
    "probs",
    "refuse_form",
    "token_log_probs",
]
