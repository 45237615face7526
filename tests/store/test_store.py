"""What is published, what is recorded, and when it is seen."""

from __future__ import annotations

import torch

from kdmesh.store import Key, Store

RECORDED = Key("s", "train", "", "recorded")


CPU = torch.device("cpu")


def test_a_publication_replaces_the_one_before_and_raises_the_version() -> None:
    store, key = Store(), Key("t", "train")
    assert store.get(key) is None
    store.put(key, torch.zeros(4, 2))
    store.put(key, torch.ones(4, 2))
    found = store.get(key)
    assert found is not None and found.version == store.version == 2
    values, present = found.at(torch.tensor([3, 1]), CPU)
    assert values.tolist() == [[1, 1], [1, 1]] and present is None
    assert store.get(Key("t", "train", "layers.0")) is None


def test_recorded_values_are_seen_after_a_commit_and_do_not_change_then() -> None:
    store = Store()
    assert store.commit(RECORDED) is None
    store.record(RECORDED, 4, torch.tensor([2, 0]), torch.tensor([[2.0], [0.5]]), at_once=False)
    assert store.get(RECORDED) is None
    store.commit(RECORDED)
    store.record(RECORDED, 4, torch.tensor([2]), torch.tensor([[9.0]]), at_once=False)
    found = store.get(RECORDED)
    assert found is not None and found.present is not None
    values, present = found.at(torch.tensor([2, 1, 0]), CPU)
    assert values[:, 0].tolist() == [2.0, 0.0, 0.5]
    assert present is not None and present.tolist() == [True, False, True]


def test_values_recorded_at_once_are_seen_in_the_next_step() -> None:
    store = Store()
    store.record(RECORDED, 3, torch.tensor([1]), torch.tensor([[1.0]]), at_once=True)
    found = store.get(RECORDED)
    assert found is not None and found.at(torch.tensor([1]), CPU)[0].item() == 1.0
