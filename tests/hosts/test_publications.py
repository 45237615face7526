"""What is published, what is recorded, and when it is seen."""

from __future__ import annotations

import torch

from kdmesh.hosts.publications import Key, Publications

RECORDED = Key("s", "train", "", "recorded")


CPU = torch.device("cpu")


def test_a_publication_replaces_the_one_before_and_raises_the_version() -> None:
    publications, key = Publications(), Key("t", "train")
    assert publications.get(key) is None
    publications.put(key, torch.zeros(4, 2))
    publications.put(key, torch.ones(4, 2))
    found = publications.get(key)
    assert found is not None and found.version == publications.version == 2
    values, present = found.at(torch.tensor([3, 1]), CPU)
    assert values.tolist() == [[1, 1], [1, 1]] and present is None
    assert publications.get(Key("t", "train", "layers.0")) is None


def test_recorded_values_are_seen_after_a_commit_and_do_not_change_then() -> None:
    publications = Publications()
    assert publications.commit(RECORDED) is None
    publications.record(RECORDED, 4, torch.tensor([2, 0]), torch.tensor([[2.0], [0.5]]), at_once=False)
    assert publications.get(RECORDED) is None
    publications.commit(RECORDED)
    publications.record(RECORDED, 4, torch.tensor([2]), torch.tensor([[9.0]]), at_once=False)
    found = publications.get(RECORDED)
    assert found is not None and found.present is not None
    values, present = found.at(torch.tensor([2, 1, 0]), CPU)
    assert values[:, 0].tolist() == [2.0, 0.0, 0.5]
    assert present is not None and present.tolist() == [True, False, True]


def test_values_recorded_at_once_are_seen_in_the_next_step() -> None:
    publications = Publications()
    publications.record(RECORDED, 3, torch.tensor([1]), torch.tensor([[1.0]]), at_once=True)
    found = publications.get(RECORDED)
    assert found is not None and found.at(torch.tensor([1]), CPU)[0].item() == 1.0
