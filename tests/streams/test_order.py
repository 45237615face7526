from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.streams.order import epoch_order, steps_per_epoch


@given(st.integers(0, 2**40), st.integers(0, 50), st.integers(0, 40))
def test_an_epoch_visits_every_position_once(seed, epoch, n):
    assert epoch_order(seed, "train", epoch, n).sort().values.tolist() == list(range(n))


def test_the_order_depends_on_each_name_and_on_nothing_else():
    torch.manual_seed(1)
    base = epoch_order(0, "train", 0, 100)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(base, epoch_order(0, "train", 0, 100))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # the default generator was not used
    others = [
        epoch_order(1, "train", 0, 100),
        epoch_order(0, "own", 0, 100),
        epoch_order(0, "train", 1, 100),
        epoch_order(0, "train", 0, 100, owner="a"),
    ]
    assert not any(torch.equal(base, other) for other in others)


@given(st.integers(1, 500), st.integers(1, 64))
def test_steps_cover_the_epoch(n, batch):
    steps = steps_per_epoch(n, batch, drop_last=False)
    assert (steps - 1) * batch < n <= steps * batch


def test_drop_last_counts_full_batches_and_refuses_none():
    assert steps_per_epoch(130, 64, drop_last=True) == 2
    with pytest.raises(MeshError, match="3 samples make no full batch of 64"):
        steps_per_epoch(3, 64, drop_last=True)
