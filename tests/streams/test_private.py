from __future__ import annotations

import torch

from kdmesh.streams.private import NOBODY, own_part
from kdmesh.streams.stream import Stream
from kdmesh.streams.table import Table


def table() -> Table:
    return Table(torch.arange(12.0).view(6, 2), torch.tensor([0, 1, 0, 1, 0, 1]), 2)


def shards(private: bool) -> dict[str, Stream]:
    parts = {"a": torch.tensor([0, 1]), "b": torch.tensor([2, 3])}
    return {"own": Stream("own", torch.arange(4), True, private, parts)}


def test_a_host_holds_its_own_private_samples_and_no_others():
    kept = own_part(table(), shards(private=True), ["a"])
    assert torch.equal(kept.x[:2], table().x[:2]) and torch.equal(kept.x[4:], table().x[4:])
    assert kept.x[2:4].isnan().all() and (kept.y[2:4] == NOBODY).all()


def test_nothing_is_blanked_without_private_shards():
    given = table()
    assert own_part(given, shards(private=False), ["a"]) is given
    assert own_part(given, shards(private=True), ["a", "b"]) is given
