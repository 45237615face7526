"""Aligned spans: what two language models with different tokenizers predict for the same pieces of a text.

No paper of its own: spans by character offsets are common practice between tokenizers, as in Boizard et al., "Towards
Cross-Tokenizer Distillation", 2024, for generated texts. Others merge the logits within a span; here only events that
both models give a probability are compared, by the chain rule.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import refuse_form
from kdmesh.builtin.objectives._numerics import floored, log_probs, possible, tempered
from kdmesh.builtin.objectives._spans import Counted, compared, grouped, picked, spans_of
from kdmesh.builtin.objectives.offers import TemperedConfig
from kdmesh.contracts.objective import Objective
from kdmesh.signals.lazy import Lazy
from kdmesh.spec.settings import checked_by

BROKEN = "\ufffd"  # how tokenizers write a token that is only part of a character


@checked_by(TemperedConfig)
class Aligned(Counted, Objective):
    """``T² sum_spans KL(target's events ‖ student's events) / N``, over the smallest spans that both tokenizers bound.

    The events of a span, the same for both sides:

    - One token each, about the same characters, and the same text: every token text that both vocabularies have, and
      "another token" (left out, and the target normalised on the rest, where the student's vocabulary has no other).
      With equal vocabularies this is the forward KL.
    - Else: "the text of the span", whose probability is the product of its tokens', and "any other text".

    Both are coarser than what the models say, so the loss is at most the divergence between their distributions over
    texts, as far as those are cut into these tokens: a text's other cuts into tokens count as other texts. A long span
    teaches little, since both models find any one text improbable. Spans where one side has no token, and targets of
    weight 0, are not compared. N counts all rows of the student, so that a batch may be split anywhere. Infinite where
    the target gives mass to an event that the student's logits of -inf rule out.

    ``weights [M]`` are the target rows'; a span has the least of its rows. ``report()``: shares of the student's rows,
    ``coverage`` of those in compared spans, ``token_coverage`` of those compared token by token.
    """

    names = ("coverage", "token_coverage")

    def __init__(self, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.scale = temperature**2 if t2_scale else 1.0
        for name in ("translation", "shared", "source_shared", "rest", "source_rest"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64), persistent=False)

    def setup(
        self,
        student: torch.Size,
        target: torch.Size,
        **facts: Any,
    ) -> None:
        """Find the texts that both vocabularies have, given as ``tokens`` and ``source_tokens``, lists of str.

        Of tokens with one text the first counts; tokens without text, or of part of a character, are not shared.
        """
        tokens, source_tokens = facts.get("tokens") or (), facts.get("source_tokens") or ()
        first: dict[str, int] = {}
        for number, text in enumerate(source_tokens):
            if text and BROKEN not in text:
                first.setdefault(text, number)
        pairs = {number: first.pop(text) for number, text in enumerate(tokens) if text in first}
        self.translation = torch.full((student[0],), -1)
        self.shared, self.source_shared = torch.tensor(list(pairs)), torch.tensor(list(pairs.values()))
        self.shared, self.source_shared = self.shared.long(), self.source_shared.long()  # also of none
        self.translation[self.shared] = self.source_shared
        self.rest, self.source_rest = _others(student[0], self.shared), _others(target[0], self.source_shared)

    def forward(
        self,
        student: Tensor | Lazy,
        target: Tensor | Lazy,
        *,
        form: str = "logits",
        weights: Tensor | None = None,
        spans: Tensor | None = None,
        source_spans: Tensor | None = None,
        labels: Tensor | None = None,
        source_labels: Tensor | None = None,
    ) -> Tensor:
        """Compare logits ``[N, V]`` with logits or probabilities ``[M, W]``; the labels are the true tokens' ids."""
        refuse_form(self, form, ("logits", "probs"))
        spans, source_spans = spans_of(spans, source_spans, len(student), len(target))
        assert labels is not None and source_labels is not None, "spans are compared by the true tokens"
        device = student.device
        own, other, count = grouped(spans, source_spans)  # on a CPU, as all that tells how many rows there are
        size, source_size = own.bincount(minlength=count), other.bincount(minlength=count)
        factors = torch.ones(count, dtype=torch.promote_types(student.dtype, torch.float32), device=device)
        if weights is not None:
            factors.scatter_reduce_(0, other.to(device), weights.to(factors.dtype), "amin", include_self=False)
        both = (size > 0) & (source_size > 0) & (factors.cpu() != 0)

        alone = ((size == 1) & (source_size == 1) & both)[own].nonzero().squeeze(1)
        theirs = torch.empty(count, dtype=torch.int64)
        theirs[other] = torch.arange(len(other))
        mate = theirs[own[alone]]
        same = (spans[alone] == source_spans[mate]).all(1)
        if len(self.translation):
            same &= (self.translation[labels[alone.to(device)]] == source_labels[mate.to(device)]).cpu()
        else:
            same &= False
        group, text = own[alone[same]], both.scatter(0, own[alone[same]], False)
        i, j = alone[same].to(device), mate[same].to(device)

        def tokens(at: Tensor) -> Tensor:
            log_q = tempered(picked(student, i[at]), self.temperature).log_softmax(-1)
            return self._divergence(log_q, log_probs(picked(target, j[at]).to(log_q.dtype), form, self.temperature))

        by_token = compared(tokens, len(i), max(student.shape[1], target.shape[1]), device) * factors[group.to(device)]
        said, wanted = (
            self._texts(values, kind, ids, group, text)
            for values, kind, ids, group in ((student, "logits", labels, own), (target, form, source_labels, other))
        )
        by_text = _two_events(wanted.to(said.dtype), said) * factors[text.nonzero().squeeze(1).to(device)]
        self.count(len(student), int(size[both].sum()), len(i))
        return (by_token.sum() + by_text.sum()) * (self.scale / max(len(student), 1))

    def _divergence(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """The divergence of rows ``[P]`` over the shared token texts and the rest; ``log_p`` is finite."""
        q, p = log_q[:, self.shared], log_p[:, self.source_shared]
        if not len(self.rest):
            p = p.log_softmax(-1) if len(self.source_rest) else p
        elif len(self.source_rest):
            q = torch.cat([q, _together(log_q[:, self.rest])], -1)
            p = torch.cat([p, log_p[:, self.source_rest].logsumexp(-1, keepdim=True)], -1)
        # what is ruled out has the smallest number, and a rest of such no more than all columns of it
        q = possible(q, p < math.log(torch.finfo(p.dtype).tiny * (1 + log_p.shape[1])))
        return (p.exp() * (p - q)).sum(-1)

    def _texts(self, values: Tensor | Lazy, form: str, labels: Tensor, group: Tensor, text: Tensor) -> Tensor:
        """The log-probability of each span's text: the sum of its true tokens', -inf where one is ruled out."""
        at, of = text[group].nonzero().squeeze(1), text.cumsum(0) - 1
        number, at = of[group[at]].to(labels.device), at.to(labels.device)

        def true(pairs: Tensor) -> Tensor:
            rows = picked(values, at[pairs])
            said = tempered(rows, self.temperature).log_softmax(-1) if form == "logits" else log_probs(rows, form, 1.0)
            return said.gather(-1, labels[at[pairs], None])[:, 0]

        said = compared(true, len(at), values.shape[1], at.device)
        return said.new_zeros(int(text.sum())).index_add(0, number, said)


def _two_events(wanted: Tensor, said: Tensor) -> Tensor:
    """``KL`` between events of the log-probabilities ``wanted`` and ``said``, each against its opposite."""
    top = -torch.finfo(said.dtype).eps
    said = possible(said, wanted < math.log(torch.finfo(said.dtype).tiny) + 1)
    wanted = floored(wanted)
    p, q = wanted.clamp(max=top), said.clamp(max=top)
    return p.exp() * (p - q) - p.expm1() * (_opposite(p) - _opposite(q))


def _together(log_q: Tensor) -> Tensor:
    """The log-probability of any of some columns ``[P, 1]``; -inf if all are ruled out, without a NaN in a gradient."""
    nothing = (log_q == -math.inf).all(-1, keepdim=True)
    return floored(log_q).logsumexp(-1, keepdim=True).masked_fill(nothing, -math.inf)


def _opposite(log_p: Tensor) -> Tensor:
    """``log(1 - e^x)`` for x < 0."""
    near = log_p > -0.7
    return torch.where(near, (-log_p.clamp(min=-1.0).expm1()).log(), (-log_p.clamp(max=-0.5).exp()).log1p())


def _others(size: int, but: Tensor) -> Tensor:
    left = torch.ones(size, dtype=torch.bool)
    left[but] = False
    return left.nonzero().squeeze(1)
