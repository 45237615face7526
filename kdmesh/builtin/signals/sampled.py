"""Sampled targets: of each row a few outputs, drawn so that on average they say the whole distribution.

Anshumann et al., "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs", 2025, sample tokens where others
keep the likeliest, which is biased. How they are drawn here, and why it is unbiased, says
:class:`kdmesh.signals.sampled.SampledProbs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.signals.sampled import SampledProbs

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.signals.lazy import Lazy


class Sampled:
    """``make(logits [N, C]) -> probabilities [N, C]``, nearly all 0, of which the expectation is ``softmax(z / T)``.

    A draw belongs to what is said of a sample and to ``seed``: it is the same wherever, and however often, the same
    answer is made. No gradient passes.
    """

    def __init__(self, draws: int, k: int = 0, seed: int = 0, temperature: float = 1.0) -> None:
        self.draws, self.k, self.seed, self.temperature = draws, k, seed, temperature

    def __call__(self, value: Tensor | Lazy) -> SampledProbs:
        """Return the columns, from large logits some rows at a time.

        Raises MeshError where there are fewer than k columns.
        """
        if self.k > value.shape[1]:
            raise MeshError(
                f"the signal sampled asks for the likeliest {self.k} of {value.shape[1]} outputs",
                instead=f"k: {value.shape[1]}, or less",
            )
        return SampledProbs.draw(value, self.k, self.draws, seed=self.seed, temperature=self.temperature)
