"""What to write a metric with, and the built-in ones, ready for any loop: ``from kdmesh.metrics import Accuracy``."""

from __future__ import annotations

from kdmesh.builtin.metrics.accuracy import Accuracy
from kdmesh.builtin.metrics.bits_per_character import BitsPerCharacter
from kdmesh.builtin.metrics.ece import ECE
from kdmesh.builtin.metrics.loss import Loss
from kdmesh.contracts.metric import Answers, Metric, own_classes

__all__ = ["ECE", "Accuracy", "Answers", "BitsPerCharacter", "Loss", "Metric", "own_classes"]
