"""The consensus rules, ready for any loop (``from kdmesh.consensus import Median``), and what to write one with."""

from __future__ import annotations

from kdmesh.builtin.consensus._base import normalised, present_of, silenced, uniform
from kdmesh.builtin.consensus.concat import Concat
from kdmesh.builtin.consensus.confidence import Confidence
from kdmesh.builtin.consensus.drop_worst import DropWorst
from kdmesh.builtin.consensus.eigen_filter import EigenFilter
from kdmesh.builtin.consensus.entropy import Entropy
from kdmesh.builtin.consensus.era import EntropyReduction
from kdmesh.builtin.consensus.expguard import ExpGuard
from kdmesh.builtin.consensus.geometric_median import GeometricMedian
from kdmesh.builtin.consensus.inverse_variance import InverseVariance
from kdmesh.builtin.consensus.lowest_ce import LowestCE
from kdmesh.builtin.consensus.mean import Mean
from kdmesh.builtin.consensus.median import Median
from kdmesh.builtin.consensus.route import Route
from kdmesh.builtin.consensus.running_average import RunningAverage
from kdmesh.builtin.consensus.staleness import Staleness
from kdmesh.builtin.consensus.threshold_vote import ThresholdVote
from kdmesh.builtin.consensus.trimmed_mean import TrimmedMean
from kdmesh.builtin.consensus.uhc import UHC
from kdmesh.builtin.consensus.vote import Vote
from kdmesh.builtin.consensus.weighted import Weighted
from kdmesh.contracts.rule import Abstaining, Rule, weighted_sum

__all__ = [
    "UHC",
    "Abstaining",
    "Concat",
    "Confidence",
    "DropWorst",
    "EigenFilter",
    "Entropy",
    "EntropyReduction",
    "ExpGuard",
    "GeometricMedian",
    "InverseVariance",
    "LowestCE",
    "Mean",
    "Median",
    "Route",
    "Rule",
    "RunningAverage",
    "Staleness",
    "ThresholdVote",
    "TrimmedMean",
    "Vote",
    "Weighted",
    "normalised",
    "present_of",
    "silenced",
    "uniform",
    "weighted_sum",
]
