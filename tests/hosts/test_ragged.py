"""A frozen agent of texts answers for several steps together, and says what it would say step by step."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kdmesh.hosts.agent import Agent
from kdmesh.hosts.ahead import Ahead
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.ragged import inference
from kdmesh.spec import TrainSpec
from kdmesh.streams.tokens import Encoded, Row, Tokens

WORDS, WIDTH = 50, 8


class Tagger(nn.Module):
    """A row per unit: an embedding, mixed over the sample's row, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.mix, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def rows(self, path: str) -> str:
        return "units" if not path else "tokens"

    def forward(self, x: Tokens) -> Tensor:
        seen = self.mix(self.words(x.ids) * x.mask[..., None])
        return self.head(seen.cumsum(1)).flatten(0, 1)[x.units]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=3, max_size=12),
    size=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_several_steps_together_are_equal_to_one_after_the_other(lengths: list[int], size: int, order) -> None:
    rows = [Row([order.randrange(WORDS) for _ in range(n)], sorted({0, n - 1}), [0] * len({0, n - 1}),
                [(0, 1)] * len({0, n - 1})) for n in lengths]  # fmt: skip
    x, at = Encoded.of(rows, pad=0), torch.tensor(order.sample(range(len(rows)), len(rows)))
    agent = Agent("t", LocalWeights("t", Tagger().eval(), TrainSpec()), None, {})
    batches = list(at.split(size))
    ahead = Ahead(agent, x, 16, (), lambda step: batches[step : step + 3])
    for step, batch in enumerate(batches):
        expected, _ = inference(agent, x.batch(batch), 16, ())
        logits, _ = ahead(step)
        assert torch.equal(logits, expected)
        assert len(logits) == int(x.counts[batch].sum())
