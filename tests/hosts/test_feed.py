"""Batches follow from step numbers."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.graph.planner import make_plan
from kdmesh.hosts.loader import Loader, ShardView
from kdmesh.hosts.preprocessing import Preprocessor
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.streams.stream import Stream
from kdmesh.streams.table import Table

CPU = torch.device("cpu")


def reading(table: Table) -> Preprocessor:
    agents = {name: {"model": {"mlp": {}}} for name in "ab"}
    labels = {"from": "labels", "to": ["a", "b"], "objective": "ce"}
    return Preprocessor(make_plan(parse({"agents": agents, "flows": [labels]}), registry()), table, registry(), None)


def shard(n: int, *, replay: bool = False, labelled: bool = True) -> ShardView:
    table = Table(torch.arange(2.0 * n)[:, None], torch.arange(2 * n) % 3, 3)
    stream = Stream("again" if replay else "train", torch.arange(0, 2 * n, 2), labelled, replay=replay)
    stream.base = "train" if replay else None
    return ShardView(reading(table), stream, "a", "", 0, CPU)


@given(n=st.integers(1, 40), size=st.integers(1, 12), drop=st.booleans(), epochs=st.integers(1, 3))
def test_an_epoch_visits_each_sample_once(n: int, size: int, drop: bool, epochs: int) -> None:
    if drop and n < size:
        return
    one, steps = shard(n), n // size if drop else -(-n // size)
    for epoch in range(epochs):
        batches = [one.batch(epoch * steps + step, size, drop) for step in range(steps)]
        assert all(batch is not None and batch.epoch == epoch for batch in batches)
        seen = torch.cat([batch.at for batch in batches if batch is not None])
        assert len(seen.unique()) == len(seen) == (steps * size if drop else n)
        counts = [one.count(epoch * steps + step, size, drop) for step in range(steps)]
        assert counts == [len(batch.at) for batch in batches if batch is not None]


def test_batches_do_not_depend_on_the_order_of_asking() -> None:
    one, two = shard(20), shard(20)
    forth = [one.batch(step, 6, False).at.tolist() for step in range(12)]  # type: ignore[union-attr]
    back = [two.batch(step, 6, False).at.tolist() for step in reversed(range(12))]  # type: ignore[union-attr]
    assert forth == back[::-1]


def test_a_replay_gives_the_batch_of_the_step_before() -> None:
    again, first = shard(20, replay=True), shard(20)
    assert again.batch(0, 6, False) is None and again.count(0, 6, False) == 0
    for step in range(1, 9):
        one, other = again.batch(step, 6, False), first.batch(step - 1, 6, False)
        assert one is not None and other is not None and torch.equal(one.at, other.at)
        assert again.count(step, 6, False) == len(one.at)


def test_hidden_labels_are_for_measuring_only() -> None:
    hidden = shard(5, labelled=False)
    batch = hidden.batch(0, 5, False)
    assert batch is not None and batch.y is None
    assert hidden.truth is not None and hidden.truth.tolist() == [0, 2, 1, 0, 2]


def test_rows_and_stable_ids() -> None:
    one = shard(4)
    assert one.x[:, 0].tolist() == [0, 2, 4, 6]
    assert one.samples(torch.tensor([3, 0])).tolist() == [6, 0]


def test_agents_share_a_lane_unless_they_own_shards() -> None:
    table = Table(torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64), 1)
    shards = {"a": torch.arange(2), "b": torch.arange(2, 6)}
    loader = Loader(
        reading(table), {"all": Stream("all", torch.arange(6), True), "own": Stream("own", torch.arange(6), True)}, 0
    )
    loader.streams["own"].shards = shards
    assert loader.shard("all", "a", CPU) is loader.shard("all", "b", CPU)
    assert [len(loader.shard("own", name, CPU)) for name in "ab"] == [2, 4]
