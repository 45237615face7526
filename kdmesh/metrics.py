"""What to write a metric with, and the built-in ones, ready for any loop: ``from kdmesh.metrics import Accuracy``."""

from __future__ import annotations

from kdmesh.builtin.metrics.accuracy import Accuracy
from kdmesh.builtin.metrics.auroc import AUROC
from kdmesh.builtin.metrics.average_precision import MeanAveragePrecision
from kdmesh.builtin.metrics.balanced_accuracy import BalancedAccuracy
from kdmesh.builtin.metrics.bits_per_character import BitsPerCharacter
from kdmesh.builtin.metrics.confusion_matrix import ConfusionMatrix
from kdmesh.builtin.metrics.ece import ECE
from kdmesh.builtin.metrics.loss import Loss
from kdmesh.builtin.metrics.macro_f1 import MacroF1
from kdmesh.builtin.metrics.mae import MeanAbsoluteError
from kdmesh.builtin.metrics.micro_f1 import MicroF1
from kdmesh.builtin.metrics.mrr import MRR
from kdmesh.builtin.metrics.mse import MeanSquaredError
from kdmesh.builtin.metrics.ndcg import NDCG
from kdmesh.builtin.metrics.per_class_accuracy import PerClassAccuracy
from kdmesh.builtin.metrics.r2 import R2
from kdmesh.builtin.metrics.recall_at_k import RecallAtK
from kdmesh.contracts.metric import Answers, Metric, own_classes

__all__ = [
    "AUROC",
    "ECE",
    "MRR",
    "NDCG",
    "R2",
    "Accuracy",
    "Answers",
    "BalancedAccuracy",
    "BitsPerCharacter",
    "ConfusionMatrix",
    "Loss",
    "MacroF1",
    "MeanAbsoluteError",
    "MeanAveragePrecision",
    "MeanSquaredError",
    "Metric",
    "MicroF1",
    "PerClassAccuracy",
    "RecallAtK",
    "own_classes",
]
