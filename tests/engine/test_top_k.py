"""Top-k logits between agents that classify: live and stored, together and spread, alone and in a consensus."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdmesh.errors import MeshError
from kdmesh.hosts.publications import Key
from kdmesh.signals.sparse import TopKLogits

FROZEN = {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}
TOP = {"top_k": {"k": 2}}
WHAT = 'top_k{"k": 2}'


@pytest.mark.parametrize("tail", ["spread", "bucket", "renormalise"])
@pytest.mark.parametrize("objective", ["kl", "mse"])
def test_live_stored_together_and_spread_teach_the_same(mesh: Any, hashes: Any, objective: str, tail: str) -> None:
    found, signal = [], {"top_k": {"k": 2, "tail": tail}}
    for refresh in ("step", "once"):
        for placement in ("together", "spread"):
            made = mesh({"teacher": FROZEN, "s": {}}, train={"epochs": 1}, placement=placement)
            made.flow("teacher", "s", objective=objective, signal=signal, refresh=refresh)
            found.append(hashes(made)["s"])
    made = mesh({"teacher": FROZEN, "s": {}}, train={"epochs": 1})
    made.flow("teacher", "s", objective=objective)
    assert set(found) == {found[0]}
    same = objective == "kl" and tail == "bucket"  # two of three classes and the rest: all there is, but for rounding
    assert hashes(made)["s"] != found[0] or same


@pytest.mark.parametrize("rule", ["mean", "geometric_median"])
def test_a_consensus_of_them_is_the_same_live_stored_and_spread(mesh: Any, hashes: Any, rule: str) -> None:
    found = []
    for refresh, placement in (("step", "together"), ("once", "together"), ("step", "spread"), ("once", "spread")):
        made = mesh({"a": FROZEN, "b": FROZEN, "s": {}}, train={"epochs": 1}, placement=placement)
        made.consensus("c", rule)
        made.flow("a", "c", signal=TOP, refresh=refresh)
        made.flow("b", "c", refresh=refresh)
        made.flow("c", "s", objective="kl")
        found.append(hashes(made)["s"])
    assert set(found) == {found[0]}


@pytest.mark.parametrize("stale", ["recorded", "snapshot"])
def test_peers_remember_them(mesh: Any, opened: Any, stale: str) -> None:
    made = mesh(["a", "b"])
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", objective="kl", signal=TOP, refresh="epoch", stale=stale)
    run, hosts = opened(made)
    run.execute()
    kept = next(iter(hosts.values())).publications.get(Key("a", "train", WHAT, "recorded"))
    assert (kept is not None) == (stale == "recorded")
    if kept is not None:  # as it was seen in training, and whole
        torch.testing.assert_close(kept.values.exp().sum(1), torch.ones(len(kept.values)))


def test_sources_that_know_some_classes_are_stand_among_all(mesh: Any) -> None:
    found = []
    for signal in ({"top_k": {"k": 2}}, "logits"):
        made = mesh(
            {"a": {**FROZEN, "labels": [0, 1]}, "b": {**FROZEN, "labels": [1, 2]}, "s": {}}, train={"epochs": 1}
        )
        made.consensus("c", "uhc")
        made.flow(["a", "b"], "c", signal=signal, refresh="step")
        made.flow("c", "s", objective="kl")
        found.append(made.run(backend="inline").agents["s"].metrics["test"]["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)  # both classes of each: nothing is lost, but rounding differs


def test_what_is_kept_and_restored_is_sparse(mesh: Any, opened: Any) -> None:
    made = mesh({"teacher": FROZEN, "s": {}}, train={"steps": 1})
    made.flow("teacher", "s", objective="kl", signal=TOP, refresh="once")
    run, hosts = opened(made)
    run.execute()
    host = hosts["host0"]
    kept = host.publications.get(Key("teacher", "train", WHAT))
    assert isinstance(kept.values, TopKLogits) and kept.values.shape == (90, 3)
    logits, _ = host.agents["teacher"].inference(
        host.loader.shard("train", "teacher", torch.device("cpu")).x, host.forward_size("teacher")
    )
    assert torch.equal(kept.values.dense(), TopKLogits.top(logits, 2).dense())


def test_a_checkpoint_holds_it_as_it_is(mesh: Any, opened: Any) -> None:
    made = mesh(["a", "b"], train={"epochs": 2})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", objective="kl", signal=TOP, refresh="epoch")
    made.flow("b", "a", objective="kl", refresh="epoch")
    run, hosts = opened(made)
    run.execute()
    (host,), (stage,), key = hosts.values(), run.plan.stages, Key("a", "train", WHAT)
    before = host.publications.get(key).values
    saved = host.save(stage.name, None)
    host.publications._visible.clear()
    host.load(stage.name, saved)
    after = host.publications.get(key).values
    assert isinstance(after, TopKLogits) and after.shape == before.shape
    assert all(torch.equal(one, other) for one, other in zip(after.leaves(), before.leaves(), strict=True))


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ({"signal": {"top_k": {"k": 0}}}, "greater than or equal to 1"),
        ({"signal": "top_k"}, "k"),
        ({"signal": {"top_k": {"k": 4}}}, r"flows\.0\.signal: .*the likeliest 4 of 3 outputs"),
        ({"signal": {"top_k": {"k": 2, "tail": "clamp"}}}, "allowed: bucket, renormalise, spread"),
        ({"signal": {"top_k": {"k": 2, "tail": "bucket"}}, "objective": "margin_mse"}, "same output in every row"),
        ({"signal": TOP, "detach": False, "refresh": "step"}, r"flows\.0\.detach: no gradient passes"),
    ],
)
def test_what_cannot_be_is_refused(mesh: Any, flow: dict[str, Any], said: str) -> None:
    made = mesh({"teacher": {}, "s": {}})
    made.flow("teacher", "s", **{"objective": "kl", **flow})
    with pytest.raises(MeshError, match=said):
        made.run(backend="inline")


def test_what_is_no_whole_distribution_is_only_compared(mesh: Any) -> None:
    made = mesh({"a": FROZEN, "b": FROZEN, "s": {}})
    made.consensus("c", "mean")
    made.flow(["a", "b"], "c", signal={"top_k": {"k": 2, "tail": "bucket"}})
    made.flow("c", "s", objective="kl")
    with pytest.raises(MeshError, match="`tail: bucket` it is no distribution over all outputs"):
        made.run(backend="inline")
