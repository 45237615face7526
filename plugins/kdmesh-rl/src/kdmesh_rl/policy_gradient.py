"""Policy gradient by groups: a text's tokens become likelier by how much better it is than others to the same prompt.

Group Relative Policy Optimization, Shao, Wang, Zhu, Xu, Song, Zhang, Li, Wu and Guo, "DeepSeekMath: Pushing the Limits
of Mathematical Reasoning in Open Language Models", 2024, whose advantage is ``(r - mean) / std`` of the rewards of a
group, whose clipped ratio is that of PPO (Schulman et al., "Proximal Policy Optimization Algorithms", 2017), and whose
average is over texts. What others found of it are settings: no division by the deviation and a constant in place of a
text's length (Liu et al., "Understanding R1-Zero-Like Training: A Critical Perspective", 2025), an average over all
tokens and another upper bound (Yu et al., "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", 2025).
The formulas were read in the documentation of TRL's GRPOTrainer and of AReaL, which quote these papers. Their KL term
towards a reference is a flow of its own here, exact over the vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from kdmesh.objectives import Objective, at_least_float32, batchmean, kept, lazily, refuse_form
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-4


class PolicyGradient(Objective):
    """``-mean(A log q(y))``, or with ``clip`` ``-mean(min(ρ A, clamp(ρ, 1 - clip, 1 + clip_high) A))``.

    ``y`` is the token that was written, ``q`` the student's probability at ``temperature``, ``ρ = q(y) / w(y)`` with
    the writer's probability ``w`` when it wrote. ``A = (r - mean r) / (std r + eps)`` of a text's reward r, over the
    texts that answer the same prompt; 0 where all their rewards are equal, and where there is one. Without ``clip`` it
    is the gradient of REINFORCE (Williams, 1992) with a group's mean as the baseline, which is that of ρ A at ρ = 1.

    ``average``: `text`, ``(1/T) sum_t (1/n_t) sum_i l_i`` over T texts of ``n_t`` tokens; `token`, ``(1/N) sum_i l_i``;
    `constant`, ``(1/T) sum_t (1/length) sum_i l_i``. With ``weights`` each ``l_i`` has its factor.
    """

    def __init__(
        self,
        std: str = "sample",
        eps: float | None = None,
        average: str = "text",
        length: int | None = None,
        clip: float | None = None,
        clip_high: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.std, self.eps, self.average, self.length = std, EPS if eps is None else eps, average, length
        self.averages = "rows" if average == "token" else "texts"
        self.rows = Rows(clip, clip if clip_high is None else clip_high, temperature)
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))

    def forward(
        self,
        student: Any,
        target: Tensor,
        *,
        form: str = "labels",
        weights: Tensor | None = None,
        text: Tensor,
        group: Tensor,
        reward: Tensor,
        written: Tensor | None = None,
    ) -> Tensor:
        """Compare logits ``[N, C]``, made or lazy, with the tokens that were written, ``[N]`` int64.

        ``text``, ``group [N]`` int64: of which text a token is, and which prompt that answers; ``reward [N]``: of the
        text; ``written [N]``: with ``clip``, the token's log-probability when it was written.
        """
        refuse_form(self, form, ("labels",))
        _, own, sizes = text.unique(return_inverse=True, return_counts=True)
        advantage = self.advantages(own, len(sizes), group, reward)[own]
        if self.average != "token" and len(own):
            each = sizes[own] if self.length is None else torch.full_like(own, self.length)
            factors = len(own) / (len(sizes) * each.to(advantage.dtype))
            weights = factors if weights is None else factors * weights.to(factors.dtype)
        given = {"advantage": advantage} if written is None else {"advantage": advantage, "written": written}
        compare = self.rows.forward if isinstance(student, Tensor) else partial(lazily, self.rows)
        return compare(student, target, form=form, weights=weights, **given)

    @torch.no_grad()
    def advantages(self, own: Tensor, texts: int, group: Tensor, reward: Tensor) -> Tensor:
        """Of each text, ``[T]``. ``own [N]``: the number of each token's text."""
        wide = torch.float32 if reward.device.type == "mps" else torch.float64
        rewards = torch.zeros(texts, dtype=wide, device=reward.device).index_put((own,), reward.to(wide))
        answers = torch.zeros(texts, dtype=torch.int64, device=reward.device).index_put((own,), group)
        _, place, sizes = answers.unique(return_inverse=True, return_counts=True)
        zeros = torch.zeros(len(sizes), dtype=wide, device=reward.device)
        apart = rewards - (zeros.index_add(0, place, rewards) / sizes)[place]
        least, most = (zeros.scatter_reduce(0, place, rewards, how, include_self=False) for how in ("amin", "amax"))
        equal = least == most
        several = sizes > 1
        self.counts += torch.stack([several.sum(), (several & equal).sum()])
        if self.std != "none":
            squares = zeros.index_add(0, place, apart**2)
            count = sizes - (1 if self.std == "sample" else 0)
            apart = apart / ((squares / count.clamp(min=1)).sqrt() + self.eps)[place]
        return torch.where(equal[place], 0.0, apart)

    def report(self) -> dict[str, float]:
        """The share of groups whose rewards were all equal, and of tokens whose ratio was out of bounds."""
        (groups, equal), (tokens, clipped) = self.counts.tolist(), self.rows.counts.tolist()
        found = {"equal_groups": equal / groups} if groups else {}
        return found | ({"clipped": clipped / tokens} if tokens else {})


class Rows(Objective):
    """The loss of each token, given its advantage: no row depends on another, so that they may come in chunks."""

    def __init__(self, low: float | None, high: float | None, temperature: float) -> None:
        super().__init__()
        self.low, self.high, self.temperature = low, high, temperature
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))

    def forward(
        self,
        student: Tensor,
        target: Tensor,
        *,
        form: str = "labels",
        weights: Tensor | None = None,
        advantage: Tensor,
        written: Tensor | None = None,
    ) -> Tensor:
        """``sum_i w_i l_i / N``."""
        logits = kept(at_least_float32(student), weights)
        scores = logits if self.temperature == 1 else logits / self.temperature
        log_q = -F.cross_entropy(scores, kept(target, weights), reduction="none")
        advantage = advantage.to(log_q.dtype)
        if written is None or self.low is None or self.high is None:
            return batchmean(-(advantage * log_q), weights)
        far = torch.where(advantage == 0, 0.0, log_q - written.to(log_q.dtype))  # or an infinite ratio times 0
        ratio = far.exp()
        bounded = ratio.clamp(1 - self.low, 1 + self.high)
        with torch.no_grad():
            self.counts += torch.stack([(advantage != 0).sum(), (bounded * advantage < ratio * advantage).sum()])
        return batchmean(-torch.minimum(ratio * advantage, bounded * advantage), weights)
