"""The interface of a consensus rule: the engine calls nothing else, and it works in anyone's own loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError


class RuleBase(nn.Module):
    """What every rule has, whether it may abstain or not."""

    space: str = "probs"
    temperature: float = 1.0

    def setup(self, sources: tuple[str, ...], classes: int, inputs: tuple[torch.Size, ...]) -> None:
        """Build what depends on the mesh. Called once, before training, seeded.

        ``sources``: the names of the combined, in their order; ``inputs``: the shapes, without the batch axis, of what
        flows `as: input`, for rules whose offer says ``inputs``. Such a rule is called with ``inputs=[...]``, for each
        such flow a tensor ``[B, ...]``, or None where nothing was published. A `per_target` rule is called with
        ``target``, the reader's name.
        """

    def report(self) -> dict[str, float]:
        """Figures about what was asked so far, by name (queries, say); what they count lives in buffers.

        Finite numbers, no tensors; what is not known yet is left out.
        """
        return {}


class Rule(RuleBase):
    """Combine M sources into one signal.

    ``forward(values, *, logits, labels=None, present=None) -> [B, C]``

    - ``values [M, B, C]``: what is combined, in the consensus' space: ``softmax(z / T)`` in space `probs`,
      ``sigmoid(z / T)`` in space `marginals` (of labels, each on its own), raw logits in space `logits`. In space
      `probs` the result is a distribution (non-negative, sums to 1); whoever owns a rule sets ``rule.space``, which
      decides whether the result is normalised, and ``rule.temperature``, the T. Of statistics of streams (signals whose
      offer says ``aligned=False``) B counts their rows and C is their width.
      In space `weights` B is 1, and C the number of floating point values in the weights of an agent.
    - ``logits [M, B, C]``: the sources' raw logits, for rules that weigh by them (entropy, confidence), at T = 1. For
      rules whose offer says ``partial``, classes that a source does not know have ``-inf`` there.
    - ``labels [B]`` int64, for rules whose offer says ``needs_labels``; else None.
    - ``errors [M, T]`` float64, a further keyword for rules whose offer says ``needs_errors``: the mean squared error
      of each source on validation, by value; infinite for a source of which none is known.
    - ``ids [B]`` int64, a further keyword for rules whose offer ``needs`` them: the rows' samples, by their stable ids.
    - ``step``, ``epoch``, ``round``, plain numbers, likewise: the batches of its reader's lesson before this one, over
      all rounds; the epoch of the lesson, from 0; the round, from 1. A rule without a state is asked for each reader by
      itself then, and what it said of a whole stream stands until a source publishes other values.
    - ``age``, likewise, a tuple of M whole numbers: in how many rounds in a row, this one too, the party of each source
      was away (`participation: {stale: keep}`); 0 for one that takes part.
    - ``present [M, B]`` bool or None: which sources answered. Absent ones have no say, whatever their values; the rest
      is renormalised. Where no source is present the row is anything finite (the engine gives it weight 0).

    Sources are combined in declared order by an explicit left-to-right sum, so results do not depend on placement.
    Inputs are never changed in place. State, if any, lives in buffers (`state_dict`), trained weights in parameters.
    State moves by teaching only: what is measured is asked of a copy. A rule whose offer says ``stateful`` is called
    once for each row that it teaches: in each step for the batch where a source answers live, else for the whole
    stream, as its sources publish other values than before. Its readers share one.
    """

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Combine the sources; the default is the weighted sum by :meth:`weights`."""
        weights = self.weights(logits, labels=labels, present=present)
        return weighted_sum(values, weights)

    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Return one weight per source and sample ``[M, B]``, non-negative and summing to 1 over M (over the present).

        Spaces `loss` and `gradient` use these as coefficients of the per-source losses. Rules that are no weighted sum
        do not have this method and do not offer those spaces.
        """
        raise NotImplementedError(f"{type(self).__name__} is no weighted sum")  # by design: see the docstring


class Abstaining(RuleBase):
    """A rule that may leave samples without an answer; its offer says ``abstains``.

    ``forward`` takes what that of a :class:`Rule` takes and returns ``(values [B, C], answered [B])``, the second bool.
    Where that is false, ``values`` may be anything: such a row adds no loss to whoever reads it, and a consensus that
    combines this one sees it as absent. Rows without any present source count as not answered, whatever is said of
    them. Spaces `loss` and `gradient` are not offered.
    """

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Combine the sources; say who was answered."""
        raise NotImplementedError(f"{type(self).__name__} must combine its sources")  # the one abstract method


class Releasing(Abstaining):
    """A rule that answers with noise alone, on its party's account; its offer names a mechanism under ``releases``.

    The engine asks :meth:`private` for what the mechanism hides, and tells :meth:`public` what came of it. Between the
    two each answer is charged for and noise is drawn (:mod:`kdmesh.privacy.releasing`): nothing else leads from sources
    to an answer, so that there is no ``forward``.
    """

    def private(self, values: Tensor, present: Tensor | None = None) -> Tensor:
        """What the mechanism takes, ``[B, C]`` on the CPU, of ``values [M, B, C]`` and who is ``present [M, B]``."""
        raise NotImplementedError(f"{type(self).__name__} must say what its mechanism hides")

    def public(self, answers: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Distributions ``[B, C]`` of what the mechanism answered, and who was answered ``[B]``."""
        raise NotImplementedError(f"{type(self).__name__} must read what its mechanism answers")

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """MeshError: without an account there is no answer."""
        what = f"{type(self).__name__} answers with noise that its party's account pays for, and there is none here"
        raise MeshError(what, instead="a mesh with `parties.NAME.privacy`; or a rule without noise: vote, mean")


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Sum ``values [M, B, C]`` by ``weights [M, B]`` from the first source to the last; weight 0 silences NaN too."""
    total = torch.zeros_like(values[0])
    for value, weight in zip(values, weights[..., None], strict=True):
        total = total + torch.where(weight != 0, value, 0.0) * weight  # masked first: 0 * NaN spoils gradients too
    return total
