"""A rule or an objective that draws random numbers draws the same wherever and whenever it is asked about the same."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.consensus import Rule
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.hosts import rules
from kdmesh.hosts.consensus import fingerprint
from kdmesh.objectives import Objective
from kdmesh.offers import ConsensusOffer, ObjectiveOffer
from kdmesh.plugins import registry
from kdmesh.signals.lazy import MixedLogits
from kdmesh.spec.read import parse

FILE = """
import kdmesh
from kdmesh.offers import ConsensusOffer, ObjectiveOffer


@kdmesh.hookimpl
def kdmesh_consensus():
    return [ConsensusOffer("noisy_file", "noisy_file:made")]


@kdmesh.hookimpl
def kdmesh_objectives():
    return [ObjectiveOffer("jitter_file", "noisy_file:jitter")]


def made():
    import torch
    from kdmesh.consensus import Rule

    class Noisy(Rule):
        def forward(self, values, **given):
            drawn = torch.rand(values.shape[:2], device=values.device)[..., None]
            return (values * drawn).sum(0) / drawn.sum(0)

    return Noisy()


def jitter():
    import torch
    from kdmesh.objectives import Objective

    class Jitter(Objective):
        def forward(self, student, target, *, form="logits", weights=None):
            return (student - target + torch.rand_like(target)).square().mean()

    return Jitter()
"""
"""The same two as a plugin of one file, which travels to other processes."""

FROZEN = {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}


class Noisy(Rule):
    """The mean of what a random choice of sources says."""

    def forward(self, values: Tensor, **given: Any) -> Tensor:
        drawn = torch.rand(values.shape[:2], device=values.device)[..., None]
        return (values * drawn).sum(0) / drawn.sum(0)


class Jitter(Objective):
    """The squared distance to what is said, give or take a random number."""

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "logits", weights: Tensor | None = None
    ) -> Tensor:
        return (student - target + torch.rand_like(target)).square().mean()


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    for offer in (ConsensusOffer("noisy", f"{__name__}:Noisy"), ObjectiveOffer("jitter", f"{__name__}:Jitter")):
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)


def made(mesh: Any, refresh: str, placement: Any = "together", more: str = "") -> Any:
    """Frozen and trained sources of a drawing rule, and of one upon it; a peer with dropout draws in between.

    Two losses that draw reach ``s``, one of them ``p`` too, which lives elsewhere if agents are spread.
    """
    rule, jitter = f"noisy{more}", f"jitter{more}"
    agents = {"a": FROZEN, "b": FROZEN, "p": {"model": {"mlp": {"hidden": [8], "dropout": 0.5}}}, "s": {}, "r": {}}
    one = mesh(agents, train={"steps": 4}, placement=placement)
    one.consensus("c", rule)
    one.consensus("d", rule)
    one.flow(["a", "b"], "c", refresh=refresh)
    one.flow("c", "d")
    one.flow("b", "d", refresh=refresh)
    one.flow("labels", ["p", "s", "r"], objective="ce")
    one.flow("p", "s", objective=jitter, refresh="step")
    one.flow("s", "p", objective=jitter, refresh="step")
    one.flow("r", ["p", "s"], objective=jitter, refresh="step")
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
    for key, publication in dict(host.publications._visible).items():  # as they come back
        host.publications.restore("visible", key, publication)
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


def told(summary: dict[str, Any]) -> dict[str, Any]:
    agents = {name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()}
    return {"agents": agents, "consensus": {name: one["metrics"] for name, one in summary["consensus"].items()}}


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("refresh", ["once", "step"])
def test_the_same_however_often_it_breaks_off(
    mesh: Any, refresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, inner = made(mesh, refresh), InlineBackend.call

    def run(last: int, **more: Any) -> tuple[Any, int]:
        calls = 0

        def call(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == last:
                raise Killed
            return inner(self, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(InlineBackend, "call", call)
            request = Request(parse(one._fields), "inline", table=one.table, checkpoint_seconds=0, **more)
            return run_once(request)[0], calls

    whole, calls = run(0, out=tmp_path / "whole")
    broken = 0
    for last in (calls // 3, 2 * calls // 3):
        with suppress(KeyboardInterrupt):
            run(last, out=tmp_path / str(last))
        (folder,) = (tmp_path / str(last)).glob("*/*")
        broken += not (folder / "summary.json").exists()
        torch.manual_seed(last)
        assert told(run(0, resume=folder)[0]) == told(whole), last
    assert broken == 2


@pytest.mark.ray
def test_the_same_on_ray(mesh: Any, ray_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noisy_file.py").write_text(FILE)
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(tmp_path))
    for refresh in ("once", "step"):
        found = []
        two = {"one": ["a", "p", "r"], "two": ["b", "s"]}
        for session, placement in ((Session("inline"), "together"), (ray_session, two)):
            one = made(mesh, refresh, placement, more="_file")
            found.append(told(run_once(Request(parse(one._fields), table=one.table), session=session)[0]))
        assert found[0] == found[1], refresh
