"""Sources that lie on purpose, to try rules on: each a function of what the honest ones say.

All know the honest sources' probabilities ``[M, N, C]`` and say the same ``[N, C]``, as if they had agreed on it.

Roux, Zimmer and Pokutta, "On the Byzantine-Resilience of Distillation-Based Federated Learning", 2024; `second_class`
is from their code.

    lies = least_likely(honest)
    said = torch.cat([honest, lies.expand(4, -1, -1)])
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def least_likely(honest: Tensor) -> Tensor:
    """LMA, the loss maximisation attack: certain of the class that is least likely by the honest mean."""
    return _certain(honest.mean(0).argmin(-1), honest)


def second_class(honest: Tensor) -> Tensor:
    """Certain of the class that is second by the honest mean: the smallest lie that changes an answer."""
    return _certain(honest.mean(0).topk(2).indices[:, 1], honest)


def least_similar(honest: Tensor, similarity: Tensor | None = None) -> Tensor:
    """CPA, the class prior attack: certain of the class least similar to the one that the honest mean holds likeliest.

    So all samples of a class get the same wrong one. ``similarity [C, C]``: by default :func:`correlated`.
    """
    similarity = correlated(honest) if similarity is None else similarity
    return _certain(similarity.argmin(-1)[honest.mean(0).argmax(-1)], honest)


def hidden_least_likely(honest: Tensor, liars: int) -> Tensor:
    """LMA by HIPS, hidden in plain sight: of each sample what that honest source says that harms most.

    It never leaves the honest sources' hull. Harm is the cross-entropy of the honest mean against what the mean of all
    would be, were ``liars`` to say so; the release gives the two parts of that mean each other's share.
    """
    share = liars / (len(honest) + liars)
    mean = honest.mean(0)
    mixed = (1 - share) * mean + share * honest
    harm = -(mean * mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()).sum(-1)
    return _chosen(honest, harm)


def hidden_least_similar(honest: Tensor, similarity: Tensor | None = None) -> Tensor:
    """CPA by HIPS: of each sample what that honest source says that is least similar to the likeliest class."""
    similarity = correlated(honest) if similarity is None else similarity
    return _chosen(honest, -(honest * similarity[honest.mean(0).argmax(-1)]).sum(-1))


def correlated(honest: Tensor) -> Tensor:
    """How classes go together ``[C, C]``: the covariance of their probabilities in the honest mean, over samples.

    The release reads a table that was made of a trained model's answers to the data set; attackers of a mesh have the
    answers alone.
    """
    return honest.mean(0).T.cov()


def _certain(classes: Tensor, honest: Tensor) -> Tensor:
    return F.one_hot(classes, honest.shape[-1]).to(honest.dtype)


def _chosen(honest: Tensor, harm: Tensor) -> Tensor:
    return honest[harm.argmax(0), torch.arange(honest.shape[1], device=honest.device)]
