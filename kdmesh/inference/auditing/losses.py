"""What a trained agent's loss is of each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from kdmesh.signals.lazy import dense
from kdmesh.streams.texts import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdmesh.inference.auditing.opened import Opened
    from kdmesh.inference.trained import Trained

AT_ONCE = 256
"""Texts whose logits are in memory together."""


class Losses(NamedTuple):
    """``sums``: of each sample, in nats, ``[n]`` float64; ``each``: what membership is told by: of a text the loss a
    character, which does not depend on its tokens; ``right``: the share whose class, or of whose tokens, it knows."""

    sums: Tensor
    each: Tensor
    right: float


def of_rows(trained: Trained, opened: Opened, mask: Tensor) -> Losses:
    """Those of some samples of the table."""
    rows, table = mask.nonzero().flatten(), opened.table
    if trained.writes:
        return of_texts(trained, [table.texts[row] for row in rows.tolist()])
    return of_classes(*class_scores(trained, opened, rows))


def class_scores(trained: Trained, opened: Opened, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The logits ``[n, C]`` float64 and the classes of samples of the table."""
    table = opened.table
    assert table.y is not None
    if table.is_text:
        scores = trained.scores(trained.tokens([table.texts[row] for row in rows.tolist()]))
    else:
        x = table.own[trained.config.agent][0] if trained.config.agent in table.own else table.numbers
        part = x[rows]
        scores = trained.scores(part if isinstance(part, torch.Tensor) else part[:])
    return dense(scores).detach().double(), table.y[rows]


def of_samples(trained: Trained, x: Sequence[Sample | Tensor], labels: Sequence[int | None]) -> Losses:
    """Those of samples that stand in no table."""
    texts = [one for one in x if isinstance(one, Sample)]
    if trained.writes:
        return of_texts(trained, texts)
    seen = trained.tokens(texts) if texts else torch.stack([one for one in x if not isinstance(one, Sample)])
    return of_classes(dense(trained.scores(seen)).detach().double(), torch.tensor(labels))


def of_classes(scores: Tensor, y: Tensor) -> Losses:
    """Those of logits ``[n, C]``."""
    losses = torch.nn.functional.cross_entropy(scores, y, reduction="none")
    return Losses(losses, losses, float((scores.argmax(1) == y).double().mean()))


def of_texts(trained: Trained, texts: Sequence[Sample]) -> Losses:
    """Those of texts by a language model: of what it learns of such, of a prompt nothing."""
    encoded = trained.tokens(texts)
    order = encoded.lengths.argsort(stable=True)
    sums, each = torch.zeros(len(texts), dtype=torch.float64), torch.zeros(len(texts), dtype=torch.float64)
    right = count = 0
    for at in order.split(AT_ONCE):
        part = encoded.select(at)
        scores = dense(trained.scores(part)).detach().double()
        targets, counts = part.targets.cpu(), part.counts.cpu()
        losses = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
        places = torch.repeat_interleave(torch.arange(len(at)), counts)
        sums[at.cpu()] = torch.zeros(len(at), dtype=torch.float64).index_add_(0, places, losses)
        right += int((scores.argmax(1) == targets).sum())
        count += len(targets)
        read = torch.zeros(len(at), dtype=torch.float64).index_add_(0, places, part.characters.cpu().double())
        each[at.cpu()] = sums[at.cpu()] / read.clamp_min(1)
    return Losses(sums, each, right / max(count, 1))
