"""A rule that draws random numbers draws the same wherever and whenever it is asked about the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kdmesh.consensus import Rule
from kdmesh.hosts import rules
from kdmesh.hosts.consensus import fingerprint
from kdmesh.offers import ConsensusOffer
from kdmesh.plugins import registry
from kdmesh.signals.lazy import MixedLogits

FROZEN = {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}


class Noisy(Rule):
    """The mean of what a random choice of sources says."""

    def forward(self, values: Tensor, **given: Any) -> Tensor:
        drawn = torch.rand(values.shape[:2], device=values.device)[..., None]
        return (values * drawn).sum(0) / drawn.sum(0)


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = ConsensusOffer("noisy", f"{__name__}:Noisy")
    monkeypatch.setitem(registry()._offers["consensus"], offer.name, offer)


def made(mesh: Any, refresh: str, placement: str = "together") -> Any:
    """Frozen and trained sources of a drawing rule, and of one upon it; a peer with dropout draws in between."""
    agents = {"a": FROZEN, "b": FROZEN, "p": {"model": {"mlp": {"hidden": [8], "dropout": 0.5}}}, "s": {}, "r": {}}
    one = mesh(agents, train={"steps": 4}, placement=placement)
    one.consensus("c", "noisy")
    one.consensus("d", "noisy")
    one.flow(["a", "b"], "c", refresh=refresh)
    one.flow("c", "d")
    one.flow("b", "d", refresh=refresh)
    one.flow("labels", ["p", "s", "r"], objective="ce")
    one.flow("p", "s", objective="kl", refresh="step")
    one.flow(["c", "d"], ["s", "r"], objective="kl")
    return one


@pytest.mark.parametrize("refresh", ["once", "step"])
def test_the_same_together_spread_and_after_other_draws(mesh: Any, hashes: Any, refresh: str) -> None:
    found = []
    for number, placement in enumerate(("together", "spread")):
        torch.manual_seed(number)
        found.append(hashes(made(mesh, refresh, placement)))
    assert found[0] == found[1]


def test_a_table_that_is_formed_anew_is_as_it_was(mesh: Any, opened: Any) -> None:
    run, hosts = opened(made(mesh, "once"))
    run.execute()
    (host,) = hosts.values()
    shard = host.loader.shard("train", "s", torch.device("cpu"))
    before = [rules.stored(host, name, "s", shard).value for name in "cd"]
    for key, publication in dict(host.store._visible).items():  # as they come back
        host.store.restore("visible", key, publication)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    after = [rules.stored(host, name, "s", shard).value for name in "cd"]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert torch.equal(torch.get_rng_state(), state)  # what trains beside it draws what it would


def test_a_fingerprint_is_of_every_bit() -> None:
    one = torch.arange(6.0).view(2, 3)
    other = one.clone()
    assert fingerprint(one) == fingerprint(other)
    other[1, 2] = torch.nextafter(other[1, 2], torch.tensor(9.0))
    prints = {fingerprint(one), fingerprint(other), fingerprint(one, None), fingerprint(None, one), fingerprint()}
    rows = MixedLogits([one, other], lambda chunks, where: chunks[0])
    assert len(prints | {fingerprint(rows), fingerprint(rows.take(torch.tensor([1])))}) == 7
