"""Log-probabilities of two answers are sums over their own tokens, however many pairs there are."""

from __future__ import annotations

import pytest
import torch

from kdmesh.hosts import paired
from kdmesh.streams.tokens import Encoded, Row, side_by_side


def pairs(count: int) -> list[Row]:
    """Answers of several lengths after a prompt of one token."""
    made = []
    for number in range(count):
        one, two = 1 + number % 4, 1 + (number + 1) % 3
        rows = [Row([0, *range(size)], list(range(size)), list(range(size)), [(0, 1)] * size) for size in (one, two)]
        made.append(side_by_side(*rows))
    return made


@pytest.mark.parametrize("together", [1, 3, 1024])
def test_sums_are_of_each_answer_alone(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "AT_ONCE", together)
    texts, whole, most = Encoded.of(pairs(10), 9), Encoded.whole, []
    monkeypatch.setattr(Encoded, "whole", lambda self: most.append(len(self)) or whole(self))
    logits = torch.randn(len(texts.targets), 5, generator=torch.Generator().manual_seed(0))
    found = paired.of_answers(logits, texts)
    own, wanted, at = logits.double().log_softmax(1), [], 0
    for row in pairs(10):
        assert row.texts is not None
        sums = [0.0, 0.0]
        for unit, target in zip(row.units, row.targets, strict=True):
            sums[unit >= row.texts[0]] += float(own[at, target])
            at += 1
        wanted.append(sums)
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-5)
    assert max(most) == min(together, 10), "all of them padded together may fill memory"
