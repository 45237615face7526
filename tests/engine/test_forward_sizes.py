"""`forward_size`: how many samples a forward has that answers without training, whatever a batch has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kdmesh.graph.idle import idle
from kdmesh.hosts.publications import Key
from kdmesh.plugins import registry

FROZEN = {"update": "frozen", "model": {"mlp": {"hidden": [16]}}}
SIZES = (7, 16, 32, 90)


def made(mesh: Any, train: dict[str, Any], refresh: str = "once", teacher: dict[str, Any] = FROZEN) -> Any:
    found = mesh({"t": teacher, "s": {}}, train=train)
    found.flow("labels", "s", objective="ce")
    found.flow("t", "s", objective="kl", refresh=refresh)
    return found


def published(mesh: Any, opened: Any, train: dict[str, Any], **more: Any) -> Tensor:
    run, hosts = opened(made(mesh, train, **more))
    run.execute()
    (host,) = hosts.values()
    kept = host.publications.get(Key("t", "train"))
    assert isinstance(kept.values, Tensor)
    return kept.values


def test_what_is_published_does_not_depend_on_the_batch_size_where_a_size_is_given(mesh: Any, opened: Any) -> None:
    first, *others = (published(mesh, opened, {"batch_size": size, "forward_size": 24}) for size in SIZES)
    assert all(torch.equal(first, other) for other in others)


def test_by_default_it_is_the_batch_size_of_the_mesh(mesh: Any, opened: Any) -> None:
    for size in SIZES:
        usual = published(mesh, opened, {"batch_size": size})
        assert torch.equal(usual, published(mesh, opened, {"batch_size": size, "forward_size": size}))


def test_an_agent_may_have_its_own(mesh: Any, opened: Any) -> None:
    of_all = published(mesh, opened, {"forward_size": 5})
    own = {**FROZEN, "train": {"forward_size": 5}}
    assert torch.equal(of_all, published(mesh, opened, {"forward_size": 64}, teacher=own))
    found = made(mesh, {"forward_size": 64}, teacher=own).run(backend="inline")
    assert found.summary["agents"]["t"]["forwards"]["made"] == 18  # 90 samples in fives


@pytest.mark.parametrize("size", [5, 32, 200])
def test_live_and_stored_answers_are_the_same_bits(mesh: Any, size: int) -> None:
    """Of batches that are cut, just full, and filled up."""
    once, step = (
        made(mesh, {"forward_size": size}, refresh).run(backend="inline").summary["agents"]["s"]["weights_sha256"]
        for refresh in ("once", "step")
    )
    assert once == step


def test_a_size_that_no_forward_has_is_told(mesh: Any) -> None:
    alone = mesh({"s": {"train": {"forward_size": 8}}}, train={"forward_size": 4})
    alone.flow("labels", "s", objective="ce")
    told = idle(alone.plan(), registry())
    assert [line.partition(":")[0] for line in told] == ["train.forward_size", "agents.s.train.forward_size"]
    assert idle(made(mesh, {"forward_size": 4}).plan(), registry()) == []
