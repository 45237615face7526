"""Membership inference: how well a score tells samples that were learned from others.

A score is a number for each sample, larger for such as look learned. Figures are of a threshold on it: the area under
the curve, and the share of members that is found while few others are taken for such (Carlini et al., "Membership
Inference Attacks From First Principles", 2022, who argue for the latter: a few who are surely found are a leak,
whatever the average says). :func:`loss_scores` is the attack by loss of Yeom et al., "Privacy Risk in Machine Learning:
Analyzing the Connection to Overfitting", 2018, section 3.2; :func:`lira_scores` the likelihood ratio of Carlini et al.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
LEAST_SPREAD = 1e-6
"""Of scores of shadow models: below it a normal distribution says nothing."""


@dataclass(frozen=True)
class Membership:
    """How well members are told from others.

    Attributes:
        members: how many scores of samples that were learned.
        others: how many of samples that were not.
        auc: the probability that a member's score is the larger, half of ties counted: 0.5 by guessing.
        auc_interval: of 95%, by the variance of Hanley and McNeil, 1982, at each area that there could be (Newcombe,
            2006, method 5): where all are told apart, few samples still leave it wide.
        rate: the false positive rate that is asked for.
        found: members above the threshold.
        wrong: others above it, at most ``rate`` of them.
        interval: of 95% for the share of members that is found, at the threshold chosen on the same scores: exact
            (Clopper and Pearson, 1934).
    """

    members: int
    others: int
    auc: float
    auc_interval: tuple[float, float]
    rate: float
    found: int
    wrong: int
    interval: tuple[float, float]

    @property
    def share(self) -> float:
        """The share of members that is found."""
        return self.found / self.members

    @property
    def least(self) -> float:
        """The least false positive rate that so many others can show: below it a rate is 0 or not known."""
        return 1 / self.others


def measured(members: np.ndarray, others: np.ndarray, rate: float = 0.01) -> Membership:
    """Measure scores ``[N]`` of members against those ``[M]`` of others. MeshError for none, and for no numbers."""
    import numpy as np

    for name, scores in (("members", members), ("others", others)):
        if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
            what = f"scores of shape {scores.shape}, {int((~np.isfinite(scores)).sum())} of them no finite number"
            raise MeshError(what, where=name, instead="a finite number for each of at least one sample")
    if not 0 < rate < 1:
        raise MeshError(f"is {rate!r}", where="rate", instead="a rate between 0 and 1, as 0.01")
    allowed = int(np.floor(rate * len(others) + 1e-9))
    ordered = np.sort(others)[::-1]
    threshold = ordered[allowed] if allowed < len(others) else -np.inf  # above it are at most so many
    found, wrong = int((members > threshold).sum()), int((others > threshold).sum())
    auc = _auc(members, others)
    return Membership(
        len(members), len(others), auc, _newcombe(auc, len(members), len(others)), rate, found, wrong,
        exact_interval(found, len(members)),
    )  # fmt: skip


def _auc(members: np.ndarray, others: np.ndarray) -> float:
    from scipy.stats import rankdata

    ranks = rankdata([*members, *others])[: len(members)]
    return float((ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(others)))


def _newcombe(auc: float, members: int, others: int) -> tuple[float, float]:
    """The areas from which ``auc`` is not further than their own standard errors allow.

    Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2", 2006.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z, more = float(norm.ppf(0.5 + CONFIDENCE / 2)), (members + others) / 2 - 1

    def beyond(area: float) -> float:
        spread = 1 + more * (1 - area) / (2 - area) + more * area / (1 + area)
        return (area - auc) ** 2 - z**2 * area * (1 - area) * spread / (members * others)

    nearly = 1e-9  # at the ends the error is 0, and `auc` may be there
    low = 0.0 if auc <= nearly else float(brentq(beyond, 0.0, min(auc, 1 - nearly)))
    high = 1.0 if auc >= 1 - nearly else float(brentq(beyond, max(auc, nearly), 1.0))
    return low, high


def exact_interval(count: int, of: int) -> tuple[float, float]:
    """The interval of 95% of a share, by Clopper and Pearson."""
    from scipy.stats import beta

    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, of - count + 1))
    high = 1.0 if count == of else float(beta.ppf(1 - tail, count + 1, of - count))
    return low, high


def loss_scores(losses: np.ndarray) -> np.ndarray:
    """Scores by the loss of each sample: what is learned has a small one."""
    return -losses


def confidences(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``log(p / (1 - p))`` of the true class, ``[N]``, which is close to normal over models (Carlini et al., IV-C)."""
    import numpy as np

    rows = np.arange(len(labels))
    right = probabilities[rows, labels].astype(np.float64)
    wrong = probabilities.astype(np.float64).copy()
    wrong[rows, labels] = 0.0
    tiny = np.finfo(np.float64).tiny
    return np.log(np.maximum(right, tiny)) - np.log(np.maximum(wrong.sum(1), tiny))


def lira_scores(own: np.ndarray, within: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Likelihood ratios ``[N]`` of ``own`` confidences under shadow models that learned a sample, and that did not.

    Args:
        own: ``[N]``, of the model that is audited.
        within: ``[S, N]``, of shadow models; NaN where one did not learn the sample.
        without: ``[S, N]``, NaN where one did.

    Each sample has normal distributions of its own means, and one variance for all samples, as where shadow models are
    few (Carlini et al., IV-C: below 64). MeshError where a sample has no shadow model of one kind.
    """
    import numpy as np

    for name, part in (("within", within), ("without", without)):
        if part.ndim != 2 or part.shape[1] != len(own) or np.isnan(part).all(0).any():
            raise MeshError("a sample without a shadow model", where=name, instead="at least one of each kind for all")
    scores = []
    for part in (within, without):
        mean = np.nanmean(part, 0)
        spread = max(float(np.sqrt(np.nanmean((part - mean) ** 2))), LEAST_SPREAD)
        scores.append(-((own - mean) ** 2) / (2 * spread**2) - np.log(spread))
    return scores[0] - scores[1]
